"""The gate between a reward and whatever would be aligned to it."""

from __future__ import annotations

from dataclasses import dataclass

from components.reward.card import Card
from components.reward.params import GateParams


@dataclass(frozen=True)
class Check:
    """One requirement: a measured value, the least it must be, and what it is."""

    name: str
    value: float | None
    least: float
    strict: bool = False

    @property
    def passed(self) -> bool | None:
        """None where there was nothing to measure."""
        if self.value is None:
            return None
        return self.value > self.least if self.strict else self.value >= self.least

    def line(self) -> str:
        """One line for a person."""
        if self.value is None:
            return f"{self.name}: unavailable"
        return f"{self.name} {self.value:.3f} {'>' if self.strict else '>='} {self.least:g}"


def checks(card: Card, gate: GateParams) -> list[Check]:
    """Every requirement on a card, in the order of importance; a number that was not measured has value
    None."""

    def number(column: str, key: str) -> float | None:
        found = card.columns.get(column)
        value = None if found is None else float(getattr(found, key))
        return None if value is None or value != value else value

    found = [
        Check("srcc_world", number("world", "srcc"), gate.srcc_world),
        Check("srcc_all", number("all", "srcc"), gate.srcc_all),
        Check("srcc_heldout_types", number("heldout_types", "srcc"), gate.srcc_heldout_types),
        Check("reference_above_all", number("all", "reference_above"), gate.reference_above),
        Check("reference_above_generated", number("generated", "reference_above"), gate.reference_above),
    ]
    # An attack must fail on all sources together, and by itself on generated clips, which a policy would use.
    # Footage alone rests on a handful of contents; its figures stand in the card.
    for attack in dict.fromkeys(name for wins in card.attacks.values() for name in wins):
        known = [w[attack] for w in card.attacks.values() if attack in w and w[attack] == w[attack]]
        pooled = sum(known) / len(known) if known else None
        found.append(Check(f"{attack}_below_original", pooled, gate.attacks))
        generated = card.attacks.get("generated", {}).get(attack)
        if generated is not None:
            usable = generated if generated == generated else None
            found.append(Check(f"{attack}_below_original_generated", usable, gate.attacks))
    low = card.judge.low if card.judge is not None and card.judge.clusters else None
    found.append(Check("judge_srcc_low", low, gate.judge_low, strict=True))
    return found


def refusals(found: list[Check]) -> list[str]:
    """The reasons to refuse: each failed check as a line; empty when the gate is open.

    A reward about which nothing at all could be measured is refused too.
    """
    if all(check.passed is None for check in found):
        return ["nothing could be measured"]
    return [
        f"{check.name} is {check.value:.3f}, must be "
        f"{'above' if check.strict else 'at least'} {check.least:g}"
        for check in found
        if check.passed is False
    ]
