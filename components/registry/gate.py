"""The gate: every rule with its figure, interval and bound, and whether it holds. Values in, values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from components.registry.gatefile import Gate, Margin, Rule
from components.registry.paired import Figure, difference, same_requests

#: What two evaluations must share for their figures to be comparable.
COMPARABLE = {"requests_digest": "prompts and seeds", "reward_digest": "reward"}
#: What makes two versions the same model.
WEIGHTS = ("lora_digest", "weights_digest", "generator_digest")

Part = Literal["minimum", "available", "absolute", "base", "comparable", "champion"]


@dataclass(frozen=True)
class Check:
    """One rule applied.

    Attributes:
        part: section of the gate file it stands in.
        rule: the rule in words.
        value: the figure it was applied to; None when it is absent.
        low, high: ends of the figure's interval; None when it has none.
        passed: whether it holds; None when it was skipped.
        note: why, where the figure alone does not say it.
    """

    part: Part
    rule: str
    value: float | None
    passed: bool | None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def line(self) -> str:
        """``passed   motion_ratio >= 0.85 and <= 1.15: 1.0200 [0.9900, 1.0400]``."""
        word = {True: "passed", False: "FAILED", None: "skipped"}[self.passed]
        if self.part == "comparable":
            return f"{word:8} {self.rule}: {self.note}"
        figure = "absent" if self.value is None else f"{self.value:.4f}"
        if self.low is not None and self.high is not None:
            figure += f" [{self.low:.4f}, {self.high:.4f}]"
        return f"{word:8} {self.rule}: {figure}{f' ({self.note})' if self.note else ''}"


@dataclass(frozen=True)
class Standing:
    """A version as the gate sees it.

    Attributes:
        version: its number; "" for a candidate that has none yet.
        metrics: by step, that step's metrics.json.
        digests: of its evaluation: ``COMPARABLE`` and ``WEIGHTS``.
        rows: of its pairs.jsonl; () where they were not kept.
        unavailable: why each dimension that was not measured was not.
    """

    version: str
    metrics: Mapping[str, Mapping[str, float]]
    digests: Mapping[str, str]
    rows: Sequence[dict[str, Any]] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @property
    def evaluation(self) -> Mapping[str, float]:
        """Metrics of the evaluation."""
        return self.metrics.get("evaluation", {})


@dataclass(frozen=True)
class Decision:
    """Accepted or refused, and on what grounds."""

    outcome: Literal["accepted", "refused", "unchanged"]
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    champion: str | None
    gate: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def decide(gate: Gate, candidate: Standing, champion: Standing | None) -> Decision:
    """Put a candidate to the gate; ``champion`` is None where there is none.

    The champion's own weights, evaluated anew, are not compared with themselves: the rest of it decides.
    """
    checks = [*_enough(gate, candidate), *(_available(name, candidate) for name in gate.available)]
    checks += [absolute(rule, candidate.metrics.get(rule.source, {})) for rule in gate.absolute]
    checks += [against_base(margin, candidate.evaluation) for margin in gate.base]
    if champion is not None and not same_weights(candidate, champion):
        checks += against_champion(gate.champion, candidate, champion)
    reasons = tuple(check.line.removeprefix("FAILED").strip() for check in checks if check.passed is False)
    number = champion.version if champion else None
    return Decision("refused" if reasons else "accepted", reasons, tuple(checks), number, gate.digest)


def same_weights(one: Standing, other: Standing) -> bool:
    """Whether two versions are the same base with the same LoRA."""
    shared = [name for name in WEIGHTS if name in one.digests]
    return (
        "generator_digest" in shared
        and len(shared) > 1
        and all(one.digests.get(name) == other.digests.get(name) for name in WEIGHTS)
    )


def absolute(rule: Rule, metrics: Mapping[str, float]) -> Check:
    """Apply one rule on a figure by itself."""
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">=", rule.at_least), (">", rule.above), ("<=", rule.at_most))
        if bound is not None
    ]
    source = "" if rule.source == "evaluation" else f"{rule.source} "
    words = f"{source}{rule.metric} {' and '.join(bounds)}{_proven(rule.proven)}"
    figure = figure_of(metrics, rule.metric)
    if figure is None:
        skipped = rule.when_absent == "skip"
        return Check(
            "absolute", words, None, None if skipped else False, note=f"the {rule.source} has no such metric"
        )
    if rule.proven and figure.low is None:
        return Check("absolute", words, figure.value, False, note="it has no interval, so nothing is proven")
    least, most = (figure.low, figure.high) if rule.proven else (figure.value, figure.value)
    assert least is not None and most is not None
    holds = (
        (rule.at_least is None or least >= rule.at_least)
        and (rule.above is None or least > rule.above)
        and (rule.at_most is None or most <= rule.at_most)
    )
    return Check("absolute", words, figure.value, holds, figure.low, figure.high)


def against_base(margin: Margin, metrics: Mapping[str, float]) -> Check:
    """Apply one margin against the base: the evaluation's own paired difference."""
    words = f"{margin.metric} at most {margin.margin:g} below the base{_proven(margin.proven)}"
    return _within("base", words, margin, figure_of(metrics, f"delta/{margin.metric}"), "was not measured")


def against_champion(margins: Sequence[Margin], candidate: Standing, champion: Standing) -> list[Check]:
    """Apply the margins against the champion; figures taken in different ways are never compared."""
    differing = [
        words
        for name, words in COMPARABLE.items()
        if not champion.digests.get(name) or candidate.digests.get(name) != champion.digests[name]
    ]
    paired = bool(candidate.rows and champion.rows)
    if not differing and paired and not same_requests(candidate.rows, champion.rows):
        differing = [COMPARABLE["requests_digest"]]
    words = f"comparable with champion version {champion.version}"
    if differing:
        note = f"not comparable: evaluated with other {' and other '.join(differing)}"
        return [Check("comparable", words, None, False, note=f"{note}; evaluate the champion again that way")]
    checks = [Check("comparable", words, None, True, note="same prompts, seeds and reward")]
    for margin in margins:
        words = (
            f"{margin.metric} at most {margin.margin:g} below champion version {champion.version}"
            f"{_proven(margin.proven)}"
        )
        if paired:
            figure = difference(candidate.rows, champion.rows, margin.metric)
        else:
            mine, theirs = (one.evaluation.get(f"aligned/{margin.metric}") for one in (candidate, champion))
            figure = None if mine is None or theirs is None else Figure(mine - theirs)
        lacking = [
            name
            for name, one in (("candidate", candidate), ("champion", champion))
            if f"aligned/{margin.metric}" not in one.evaluation
        ]
        if figure is None and len(lacking) == 1:  # what one of them has is not passed over in silence
            checks.append(Check("champion", words, None, False, note=f"the {lacking[0]} has no such score"))
        else:
            checks.append(_within("champion", words, margin, figure, "neither has this score"))
    return checks


def figure_of(metrics: Mapping[str, float], name: str) -> Figure | None:
    """A figure of a metrics.json with its interval, under the names the evaluation gives the ends."""
    if name not in metrics:
        return None
    group, slash, last = name.rpartition("/")
    low, high = (f"{group}_{end}/{last}" if slash else f"{name}_{end}" for end in ("low", "high"))
    return Figure(metrics[name], metrics.get(low), metrics.get(high))


def _within(part: Part, words: str, margin: Margin, figure: Figure | None, absent: str) -> Check:
    if figure is None:
        return Check(part, words, None, None if margin.when_absent == "skip" else False, note=absent)
    if margin.proven and figure.low is None:
        return Check(part, words, figure.value, False, note="it has no interval, so nothing is proven")
    least = figure.low if margin.proven else figure.value
    assert least is not None
    return Check(part, words, figure.value, least >= -margin.margin, figure.low, figure.high)


def _enough(gate: Gate, candidate: Standing) -> list[Check]:
    return [
        Check("minimum", f"{name} >= {least}", found, found is not None and found >= least)
        for name, least in (("prompts", gate.minimum.prompts), ("pairs", gate.minimum.pairs))
        for found in [candidate.evaluation.get(name)]
    ]


def _available(name: str, candidate: Standing) -> Check:
    value = candidate.evaluation.get(f"aligned/{name}")
    note = "" if value is not None else candidate.unavailable.get(name, "was not measured")
    return Check("available", f"{name} is measured", value, value is not None, note=note)


def _proven(proven: bool) -> str:
    return ", whole interval" if proven else ""
