"""The gate between a reward and whatever would be aligned to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from components.reward.card.card import Card, GateCheck, GateResult
from components.reward.params import GateParams
from components.runtime.gate.rules import Figure, Rule


@dataclass(frozen=True)
class Check:
    """One requirement: a measured value, the least (or, with `most`, the most) it may be, and what it is.

    Attributes:
        strict: whether the value must lie above `least`.
        upper: upper end of the value's interval; where there is one, the value is too low only if that is.
    """

    name: str
    value: float | None
    least: float
    strict: bool = False
    most: bool = False
    upper: float | None = None

    @property
    def rule(self) -> Rule:
        """The requirement as a rule."""
        bound = "at_most" if self.most else "above" if self.strict else "at_least"
        return Rule.model_validate(
            {"metric": self.name, bound: self.least, "unless_refuted": self.upper is not None}
        )

    @property
    def passed(self) -> bool | None:
        """None where there was nothing to measure."""
        if self.value is None:
            return None
        return self.rule.kept_by(Figure(self.value, None if self.upper is None else self.value, self.upper))

    def line(self) -> str:
        """One line for a person."""
        if self.value is None:
            return f"{self.name}: unavailable"
        upper = "" if self.upper is None else f" (up to {self.upper:.3f})"
        return f"{self.name} {self.value:.3f}{upper} {self.rule.bounds}"

    def reason(self) -> str:
        """What is wrong where it failed."""
        demand = "at most" if self.most else "above" if self.strict else "at least"
        return f"{self.name} is {self.value:.3f}, must be {demand} {self.least:g}"

    @property
    def room(self) -> float | None:
        """How far the value, or the end of its interval that counts, lies inside the bound, in its own unit;
        negative outside, None where there was nothing to measure."""
        if self.value is None:
            return None
        counted = self.value if self.upper is None else self.upper
        return self.least - counted if self.most else counted - self.least


def checks(card: Card, gate: GateParams) -> list[Check]:
    """Every requirement on a card, in the order of importance; a number that was not measured has value
    None."""

    def number(column: str, key: str) -> float | None:
        return getattr(card.columns.get(column), key, None)

    found = [
        Check("srcc_world", number("world", "srcc"), gate.srcc_world),
        Check("srcc_footage", number("footage", "srcc"), gate.srcc_footage),
        Check("srcc_all", number("all", "srcc"), gate.srcc_all),
        Check("srcc_heldout_types", number("heldout_types", "srcc"), gate.srcc_heldout_types),
        Check("reference_above_all", number("all", "reference_above"), gate.reference_above),
        Check("reference_above_generated", number("generated", "reference_above"), gate.reference_above),
        Check("adjacent_ordered_all", number("all", "adjacent_ordered"), gate.adjacent_ordered),
        Check("two_apart_ordered_all", number("all", "two_apart_ordered"), gate.two_apart_ordered),
    ]
    # An attack must fail on all sources together, and by itself on generated clips, which a policy would use:
    # there on so few that a share counts as too low only where its interval says so.
    # Footage alone rests on a handful of contents; its figures stand in the card.
    for attack, wins in card.pooled().items():
        own = card.attacks.get("generated", {}).get(attack)
        if own is None or own.clips != wins.clips:
            found.append(Check(f"{attack}_below_original", wins.share, gate.attacks))
        if own is not None:
            found.append(
                Check(
                    f"{attack}_below_original_generated",
                    own.share,
                    gate.attacks,
                    upper=own.high,
                )
            )
    gain = None if card.stillness is None else card.stillness.verdict
    found.append(Check("stillness_gain", gain, gate.stillness_gain, most=True))
    # Of fewer than 10 prompts nothing is shown: there is no interval.
    low = None if card.judge is None else card.judge.low
    found.append(Check("judge_srcc_low", low, gate.judge_low, strict=True))
    return found


def least_room(found: list[Check]) -> float | None:
    """The smallest room of all measured requirements: by what the gate was passed, or missed."""
    return min((check.room for check in found if check.room is not None), default=None)


def refusals(found: list[Check]) -> list[str]:
    """The reasons to refuse: each failed check as a line; empty when the gate is open.

    A reward about which nothing at all could be measured is refused too.
    """
    if all(check.passed is None for check in found):
        return ["nothing could be measured"]
    return [check.reason() for check in found if check.passed is False]


def result(found: list[Check]) -> GateResult:
    """The decision as the card holds it."""
    reasons = refusals(found)
    rows = [GateCheck(**asdict(check), passed=check.passed, line=check.line()) for check in found]
    return GateResult(not reasons, reasons, rows)
