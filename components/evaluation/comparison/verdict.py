"""Base beside aligned: every comparison of a run, the gate's rules on it, and what may be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from components.evaluation.comparison.measure import Side
from components.evaluation.comparison.paired import Paired, compare
from components.evaluation.params import EvaluationParams
from components.runtime.gate.rules import Check
from components.runtime.gate.thresholds import Gate
from components.runtime.stats import FEWEST, Clusters, Interval, holm, plain


@dataclass(frozen=True)
class Verdict:
    """The whole comparison.

    Attributes:
        judge: None where there is no oracle judge.
        dimensions: those measured on both sides.
        p_holm: their p-values after Holm's correction over all of them.
        semantic: names of those that look at what the prompt asked for.
        motion, diversity: of base and aligned.
        checks: the gate's rules that one evaluation can answer; see `put_to_gate`.
        gate: the rules.
    """

    reward: Paired
    judge: Paired | None
    dimensions: dict[str, Paired]
    p_holm: dict[str, float]
    semantic: tuple[str, ...]
    motion: tuple[float, float]
    motion_ratio: Interval
    diversity: tuple[float, float]
    diversity_ratio: Interval
    checks: tuple[Check, ...] = ()
    gate: Gate = field(default_factory=Gate)

    @property
    def broken(self) -> list[Check]:
        """Rules that do not hold."""
        return [check for check in self.checks if check.passed is False]

    @property
    def worst_semantic(self) -> Interval | None:
        """The largest fall of a semantic dimension, and the lowest ends of all of them: where those keep a
        bound, every dimension's whole interval does."""
        changes = [self.dimensions[name].difference for name in self.semantic]
        if not changes:
            return None
        return Interval(*(min(getattr(one, end) for one in changes) for end in ("value", "low", "high")))

    @property
    def headline(self) -> str:
        """What may be said, in one sentence or two."""
        if self.reward.prompts < FEWEST:
            return f"Nothing is shown: {self.reward.prompts} prompts, an interval needs {FEWEST} or more."
        by_reward = self.reward.rate.low > 0.5
        by_judge = self.judge is not None and self.judge.rate.low > 0.5
        if by_reward and by_judge:
            start = "The aligned model wins, by the training reward and by the oracle judge"
        elif by_reward and self.judge is None:
            start = "The aligned model wins by its training reward; there is no oracle judge to confirm it"
        elif by_reward:
            start = "The aligned model wins by its training reward only; the oracle judge does not agree"
        elif by_judge:
            start = "The aligned model wins by the oracle judge, not by its training reward"
        else:
            start = "The aligned model is not shown to be better than its base"
        if self.broken:
            return f"{start}. Rules of the gate that fail: {'; '.join(one.rule for one in self.broken)}."
        return f"{start}. Every rule of the gate holds that needs no champion."


def judge_pairs(base: Side, aligned: Side, params: EvaluationParams, clusters: Clusters) -> Verdict:
    """Compare two sides measured on the same requests."""
    judged = None
    if base.judge is not None and aligned.judge is not None:
        judged = compare(base.judge, aligned.judge, clusters, params.tie_judge, bound=1.0)
    dimensions = {
        name: compare(base.scores[name], aligned.scores[name], clusters, bound=1.0)
        for name in base.scores
        if name in aligned.scores and np.isfinite(aligned.scores[name] - base.scores[name]).any()
    }
    return Verdict(
        reward=compare(base.reward, aligned.reward, clusters, params.tie_reward),
        judge=judged,
        dimensions=dimensions,
        p_holm=holm({name: paired.p_value for name, paired in dimensions.items()}),
        semantic=tuple(
            name for name, used in base.used.items() if used.group == "semantic" and name in dimensions
        ),
        motion=(_mean(base.motion), _mean(aligned.motion)),
        motion_ratio=clusters.ratio(aligned.motion, base.motion),
        diversity=(_mean(base.diversity), _mean(aligned.diversity)),
        diversity_ratio=clusters.ratio(aligned.diversity, base.diversity),
    )


def put_to_gate(
    verdict: Verdict,
    gate: Gate,
    metrics: Mapping[str, Mapping[str, float]],
    unavailable: Mapping[str, str],
) -> Verdict:
    """The verdict with the gate's rules applied, those that need no champion.

    Args:
        metrics: by step, that step's metrics.json; the evaluation's is `flat_metrics`.
        unavailable: why each dimension that was not measured was not.
    """
    return replace(verdict, checks=tuple(gate.without_champion(metrics, unavailable)), gate=gate)


def flat_metrics(verdict: Verdict, base: Side, aligned: Side) -> dict[str, float]:
    """The step's metrics.json: finite figures only; what is unavailable is absent, not zero."""
    metrics = {"pairs": float(verdict.reward.pairs), "prompts": float(verdict.reward.prompts)}
    for name, paired in (("reward", verdict.reward), ("judge", verdict.judge)):
        if paired is not None:
            metrics |= _with_ends(f"win_rate_{name}", paired.rate) | {f"ties_{name}": float(paired.ties)}
            metrics |= _paired_metrics(name, paired)
    for name, paired in verdict.dimensions.items():
        metrics |= _paired_metrics(name, paired) | {f"p_holm/{name}": verdict.p_holm[name]}
    for name, means, ratio in (
        ("motion", verdict.motion, verdict.motion_ratio),
        ("diversity", verdict.diversity, verdict.diversity_ratio),
    ):
        metrics |= {f"base/{name}": means[0], f"aligned/{name}": means[1]}
        metrics |= _with_ends(f"{name}_ratio", ratio)
    if verdict.worst_semantic is not None:
        metrics |= _with_ends("worst_semantic_delta", verdict.worst_semantic)
    for name, side in (("base", base), ("aligned", aligned)):
        metrics |= {f"{name}/judge_{part}": _mean(values) for part, values in side.parts.items()}
        metrics |= {f"{name}/motion_flow": _mean(side.flow)}
    metrics["dimensions_unavailable"] = float(len(base.unavailable))
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


def _with_ends(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The comparison as plain JSON values; ends of intervals that there are not are null."""
    content: dict[str, Any] = plain(
        {
            "headline": verdict.headline,
            "reward": asdict(verdict.reward),
            "judge": asdict(verdict.judge) if verdict.judge else None,
            "dimensions": {
                name: asdict(paired) | {"p_holm": verdict.p_holm[name]}
                for name, paired in verdict.dimensions.items()
            },
            "checks": [check.as_json() for check in verdict.checks],
            "gate_digest": verdict.gate.digest,
        }
    )
    return content


def _paired_metrics(name: str, paired: Paired) -> dict[str, float]:
    return {
        f"base/{name}": paired.base_mean,
        f"aligned/{name}": paired.aligned_mean,
        f"delta/{name}": paired.difference.value,
        f"delta_low/{name}": paired.difference.low,
        f"delta_high/{name}": paired.difference.high,
    }


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
