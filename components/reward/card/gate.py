"""The gate between a reward and an alignment: the rules under `reward` of the gate file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from components.reward.card.card import Card, GateCheck, GateResult
from components.reward.params import GateParams
from components.runtime.gate.rules import Check, apply
from components.runtime.stats import Interval, without_interval


def checks(card: Card, gate: GateParams) -> list[Check]:
    """Every rule on a card, in the order of importance; a figure that was not measured has value None."""
    rules = gate.rules()
    applied = []
    for metric, figure in _figures(card):
        rule = next(rule for rule in rules if fnmatchcase(metric, rule.metric))
        rule = rule.model_copy(update={"metric": metric})
        applied.append(apply(rule, figure, "reward", f"{metric} {rule.bounds}{rule.how}", "unavailable"))
    return applied


def line(check: Check) -> str:
    """The check in a line, `srcc_world 0.880 >= 0.85`."""
    if check.value is None:
        return f"{check.metric}: unavailable"
    upper = "" if check.high is None else f" (up to {check.high:.3f})"
    return f"{check.metric} {check.value:.3f}{upper} {check.bounds}"


def least_room(applied: Sequence[Check]) -> float | None:
    """The smallest room of all measured figures: by what the gate was passed, or missed."""
    return min((check.room for check in applied if check.room is not None), default=None)


def refusals(applied: Sequence[Check]) -> list[str]:
    """The reasons to refuse: each failed check as a line; empty when the gate is open.

    A reward of which nothing at all could be measured is refused too.
    """
    if all(check.passed is None for check in applied):
        return ["nothing could be measured"]
    return [_reason(check) for check in applied if check.passed is False]


def decide(card: Card, gate: GateParams) -> GateResult:
    """The gate's decision on a card, as the card holds it."""
    rows, applied = [], checks(card, gate)
    for check in applied:
        bound = next(b for b in (check.at_least, check.above, check.at_most) if b is not None)
        rows.append(GateCheck(check.metric, check.value, bound, check.passed, line(check)))
    reasons = refusals(applied)
    return GateResult(not reasons, reasons, rows, least_room(applied))


def _figures(card: Card) -> Iterator[tuple[str, Interval | None]]:
    """Every figure of a card that there is a rule on, None where it was not measured."""
    for metric, column, field in (
        ("srcc_world", "world", "srcc"),
        ("srcc_footage", "footage", "srcc"),
        ("srcc_all", "all", "srcc"),
        ("srcc_heldout_types", "heldout_types", "srcc"),
        ("reference_above_all", "all", "reference_above"),
        ("reference_above_generated", "generated", "reference_above"),
        ("adjacent_ordered_all", "all", "adjacent_ordered"),
        ("two_apart_ordered_all", "all", "two_apart_ordered"),
    ):
        yield metric, _known(getattr(card.columns.get(column), field, None))
    # Footage alone rests on a handful of contents; its figures stand in the card.
    for attack, wins in card.pooled().items():
        generated = card.attacks.get("generated", {}).get(attack)
        if generated is None or generated.clips != wins.clips:
            yield f"{attack}_below_original", _known(wins.share)
        if generated is not None:
            yield f"{attack}_below_original_generated", _known(generated.share, generated.low, generated.high)
    yield "stillness_gain", _known(None if card.stillness is None else card.stillness.verdict)
    yield "judge_srcc_low", _known(None if card.judge is None else card.judge.low)


def _known(value: float | None, low: float | None = None, high: float | None = None) -> Interval | None:
    if value is None or low is None or high is None:
        return None if value is None else without_interval(value)
    return Interval(value, low, high)


def _reason(check: Check) -> str:
    named = (("at least", check.at_least), ("above", check.above), ("at most", check.at_most))
    demand = " and ".join(f"{words} {bound:g}" for words, bound in named if bound is not None)
    return f"{check.metric} is {check.value:.3f}, must be {demand}"
