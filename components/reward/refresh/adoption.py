"""Whether a refreshed version of a reward is adopted: the reward's rules, or non-inferiority to version 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.reward.card import gate
from components.reward.card.card import Card, Wins
from components.reward.params import GateParams
from components.runtime.gate.rules import Check, Margin
from components.runtime.gate.thresholds import shipped
from components.runtime.stats import without_interval


@dataclass(frozen=True)
class Comparison:
    """One figure of two versions on the same held-out clips.

    Attributes:
        before, after: of the version compared with, and of the new one.
        margin: by how much the new one may be worse.
        rule: the gate's rule on the new one, None where it has none; where it holds, any loss is allowed.
    """

    name: str
    before: float
    after: float
    margin: float
    rule: Check | None = None

    @property
    def holds(self) -> bool:
        """Whether the new version may be adopted as far as this figure goes."""
        if self.rule is not None and self.rule.passed:
            return True
        smaller_is_better = self.rule is not None and self.rule.at_most is not None
        gain = self.before - self.after if smaller_is_better else self.after - self.before
        margin = Margin(metric=self.name, margin=self.margin)
        return bool(margin.check(without_interval(gain + 1e-9), "refresh", "version 0", "").passed)

    def line(self) -> str:
        """The figure in a line for a person."""
        return f"{self.name} is {self.after:.3f}, was {self.before:.3f}"

    def as_json(self) -> dict[str, float]:
        """Values before and after, and the bound of the gate's rule."""
        values = {"before": self.before, "after": self.after}
        if self.rule is None:
            return values
        bounds = (self.rule.at_least, self.rule.above, self.rule.at_most)
        return values | {"least": next(bound for bound in bounds if bound is not None)}


def compared(
    first: Card, card: Card, params: GateParams, ordered: Sequence[float | None] | None = None
) -> list[Comparison]:
    """Every figure that decides; a figure that was not measured on both sides is left out.

    A figure must keep its rule, or lie at most `refresh.margin` of the gate file below version 0: below the
    version just before, many small steps could lead anywhere. An attack is tried on few clips: it may
    lose one of them, while all attacks together keep to the margin.

    Args:
        first: card of version 0.
        card: of the new version, from the same clips.
        params: of the gate that version 0 has passed.
        ordered: share of pairs in the right order on ladders over held-out samples of the policy, by the
            version that judges now and by the new one; the same margin holds.
    """
    margin = shipped().refresh.margin
    before = {check.metric: check.value for check in gate.checks(first, params)}
    one_clip = _one_clip(card)
    comparisons = []
    for check in gate.checks(card, params):
        was = before.get(check.metric)
        if check.value is not None and was is not None:
            allowed = max(margin, one_clip.get(check.metric, 0.0))
            comparisons.append(Comparison(check.metric, was, check.value, allowed, check))
    attacks = [Wins.pooled(each.pooled().values()).share for each in (first, card)]
    for name, pair in (("attacks_below_original", attacks), ("policy_pairs_ordered", ordered)):
        was, now = pair or (None, None)
        if was is not None and now is not None:
            comparisons.append(Comparison(name, was, now, margin))
    return comparisons


def objections(comparisons: Sequence[Comparison]) -> list[str]:
    """The reasons not to adopt, one line each; a version of which nothing was measured has one too."""
    if not comparisons:
        return ["nothing could be compared"]
    return [comparison.line() for comparison in comparisons if not comparison.holds]


def _one_clip(card: Card) -> dict[str, float]:
    """What one clip weighs in the share of each attack, by the metric of its rule."""
    generated = card.attacks.get("generated", {})
    clips = {f"{attack}_below_original": wins.clips for attack, wins in card.pooled().items()}
    clips |= {f"{attack}_below_original_generated": wins.clips for attack, wins in generated.items()}
    return {metric: 1.0 / number for metric, number in clips.items() if number}
