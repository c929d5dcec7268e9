"""Whether a refreshed version of a reward is adopted: compared with what was there, figure by figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.reward.card import gate
from components.reward.card.card import Card, Wins
from components.reward.params import GateParams

MARGIN = 0.02
"""How far below the version it is compared with a new one may measure, in shares and correlations."""


@dataclass(frozen=True)
class Comparison:
    """One figure of two versions on the same held-out clips.

    Attributes:
        before, after: of the version compared with, and of the new one.
        allowed: how much may be lost.
        least: what the gate asks for, None where it asks nothing.
        passed: whether the new one reaches that; whatever it lost is then no matter.
        most: whether smaller is better, and `least` an upper bound.
    """

    name: str
    before: float
    after: float
    allowed: float = MARGIN
    least: float | None = None
    passed: bool = False
    most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the new version may be adopted as far as this figure goes."""
        lost = self.after - self.before if self.most else self.before - self.after
        return self.passed or lost <= self.allowed + 1e-9

    def line(self) -> str:
        """The figure in a line for a person."""
        return f"{self.name} is {self.after:.3f}, was {self.before:.3f}"

    def as_json(self) -> dict[str, float]:
        """Values before and after, and what the gate asks for."""
        found = {"before": self.before, "after": self.after}
        return found if self.least is None else {**found, "least": self.least}


def compared(
    first: Card, card: Card, params: GateParams, ordered: Sequence[float | None] | None = None
) -> list[Comparison]:
    """Every figure that decides; what was not measured on both sides is left out.

    What the gate asks for must be reached, or lie at most MARGIN below the first version: below the one just
    before, many small steps could lead anywhere. An attack is tried on few clips: it may lose one of them,
    while all attacks together are held to MARGIN.

    Args:
        first: card of version 0.
        card: of the new version, from the same clips.
        params: of the gate that version 0 has passed.
        ordered: share of pairs in the right order on ladders over held-out samples of the policy, by the
            version that judges now and by the new one; the new one may lie at most MARGIN below.
    """
    before = {check.name: check.value for check in gate.checks(first, params)}
    weight = _one_clip(card)
    found = []
    for check in gate.checks(card, params):
        was = before.get(check.name)
        if check.value is not None and was is not None:
            allowed = max(MARGIN, weight.get(check.name, 0.0))
            found.append(
                Comparison(check.name, was, check.value, allowed, check.least, bool(check.passed), check.most)
            )
    attacks = [Wins.pooled(each.pooled().values()).share for each in (first, card)]
    for name, pair in (("attacks_below_original", attacks), ("policy_pairs_ordered", ordered)):
        known = [value for value in pair or () if value is not None]
        if len(known) == 2:
            found.append(Comparison(name, *known))
    return found


def objections(found: Sequence[Comparison]) -> list[str]:
    """The reasons not to adopt, one line each; a version of which nothing was measured has one too."""
    if not found:
        return ["nothing could be compared"]
    return [comparison.line() for comparison in found if not comparison.holds]


def _one_clip(card: Card) -> dict[str, float]:
    """What one clip weighs in the share of each attack, by the name of its check."""
    generated = card.attacks.get("generated", {})
    found = {f"{attack}_below_original": wins.clips for attack, wins in card.pooled().items()}
    found |= {f"{attack}_below_original_generated": wins.clips for attack, wins in generated.items()}
    return {name: 1.0 / clips for name, clips in found.items() if clips}
