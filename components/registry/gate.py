"""The gate: every rule, its figure, its threshold, and whether it holds. Values in, values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from components.registry.params import RelativeRule, Rule

#: What two evaluations must share for their figures to be comparable.
COMPARABLE = {"requests_digest": "prompts and seeds", "reward_digest": "reward"}


@dataclass(frozen=True)
class Check:
    """One rule applied.

    Attributes:
        rule: the rule in words.
        value: the figure it was applied to; None when it is absent.
        passed: whether it holds; None when it was skipped.
        note: why, where the figure alone does not say it.
    """

    rule: str
    value: float | None
    passed: bool | None
    note: str = ""

    @property
    def line(self) -> str:
        """``passed   motion_ratio >= 0.85 and <= 1.15: 1.02``."""
        word = {True: "passed", False: "FAILED", None: "skipped"}[self.passed]
        figure = "absent" if self.value is None else f"{self.value:.4f}"
        return f"{word:8} {self.rule}: {figure}{f' ({self.note})' if self.note else ''}"


@dataclass(frozen=True)
class Standing:
    """A registered version as the gate sees it: its evaluation's metrics and how they were taken."""

    version: str
    metrics: Mapping[str, float]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Decision:
    """Accepted or refused, and on what grounds."""

    outcome: Literal["accepted", "refused", "unchanged"]
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    champion: str | None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def decide(
    rules: Sequence[Rule],
    relative: Sequence[RelativeRule],
    metrics: Mapping[str, Mapping[str, float]],
    digests: Mapping[str, str],
    champion: Standing | None,
) -> Decision:
    """Apply the absolute rules, then those relative to the champion.

    Args:
        rules: absolute requirements.
        relative: requirements against the champion.
        metrics: the candidate's metrics by source step.
        digests: of the candidate's evaluation: ``COMPARABLE`` and those that identify the model.
        champion: the present champion; None when there is none.
    """
    checks = [absolute(rule, metrics.get(rule.source, {})) for rule in rules]
    if champion is not None:
        checks += against(relative, metrics.get("evaluation", {}), digests, champion)
    reasons = tuple(check.line.removeprefix("FAILED").strip() for check in checks if check.passed is False)
    return Decision(
        "refused" if reasons else "accepted", reasons, tuple(checks), champion.version if champion else None
    )


def absolute(rule: Rule, metrics: Mapping[str, float]) -> Check:
    """Apply one absolute rule."""
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">=", rule.at_least), (">", rule.above), ("<=", rule.at_most))
        if bound is not None
    ]
    source = "" if rule.source == "evaluation" else f"{rule.source} "
    words = f"{source}{rule.metric} {' and '.join(bounds)}"
    value = metrics.get(rule.metric)
    if value is None:
        passed = None if rule.when_absent == "skip" else False
        return Check(words, None, passed, f"the {rule.source} has no such metric")
    holds = (
        (rule.at_least is None or value >= rule.at_least)
        and (rule.above is None or value > rule.above)
        and (rule.at_most is None or value <= rule.at_most)
    )
    return Check(words, value, holds)


def against(
    relative: Sequence[RelativeRule],
    metrics: Mapping[str, float],
    digests: Mapping[str, str],
    champion: Standing,
) -> list[Check]:
    """Apply the relative rules; figures taken in different ways are not compared, which counts as failing."""
    differing = [
        words for name, words in COMPARABLE.items() if digests.get(name) != champion.digests.get(name)
    ]
    if differing:
        words = f"comparable with champion version {champion.version}"
        note = f"not comparable: evaluated with other {' and other '.join(differing)}"
        return [Check(words, None, False, f"{note}; evaluate the champion again, or promote by hand")]
    checks = []
    for rule in relative:
        mine, theirs = metrics.get(rule.metric), champion.metrics.get(rule.metric)
        words = f"{rule.metric} at most {rule.largest_drop:g} below champion version {champion.version}"
        if mine is None and theirs is None:
            checks.append(Check(words, None, None, "neither has this metric"))
        elif mine is None or theirs is None:
            checks.append(
                Check(
                    words,
                    mine,
                    False,
                    f"the {'candidate' if mine is None else 'champion'} has no such metric",
                )
            )
        else:
            checks.append(Check(words, mine, mine >= theirs - rule.largest_drop, f"champion {theirs:.4f}"))
    return checks
