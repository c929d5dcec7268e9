"""Base beside aligned: every comparison of a run, the margins that must hold, and what may be said of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from components.evaluation.comparison import Clusters, Paired, compare, holm
from components.evaluation.measure import Side
from components.evaluation.params import EvaluationParams, Margins
from components.runtime.intervals import Interval

#: What a reward for sharp single frames would spoil: neither may be lost, and that must be shown.
STEADY = ("temporal_flickering", "motion_smoothness")
#: What must have been measured, whatever it came to.
NEEDED = ("dynamic_degree",)


@dataclass(frozen=True)
class Guard:
    """One margin stated before looking: the figure with its interval, and the allowed range.

    ``proven`` asks for more: the whole interval inside the range. With some hundred pairs a yes-or-no
    dimension rarely gets there, so the verdict goes by ``held`` and shows both, except where ``strict``.
    """

    name: str
    figure: Interval
    lowest: float
    highest: float | None
    strict: bool = False

    @property
    def held(self) -> bool:
        """Whether the estimate, where strict the whole interval, lies inside the allowed range."""
        if self.strict:
            return self.proven
        return self.figure.value >= self.lowest and (
            self.highest is None or self.figure.value <= self.highest
        )

    @property
    def proven(self) -> bool:
        """Whether the whole interval does."""
        return self.figure.low >= self.lowest and (self.highest is None or self.figure.high <= self.highest)


@dataclass(frozen=True)
class Verdict:
    """The whole comparison.

    ``judge`` is None where there is no independent judge; ``dimensions`` holds those measured on both sides
    and ``p_holm`` their p-values after Holm's correction over all of them.
    """

    reward: Paired
    judge: Paired | None
    dimensions: dict[str, Paired]
    p_holm: dict[str, float]
    motion: tuple[float, float]
    motion_ratio: Interval
    diversity: tuple[float, float]
    diversity_ratio: Interval
    guards: list[Guard] = field(default_factory=list)

    @property
    def semantic(self) -> list[Guard]:
        """Margins on what the prompt asked for."""
        steady = {f"{name} change" for name in STEADY}
        return [guard for guard in self.guards if guard.name.endswith(" change") and guard.name not in steady]

    @property
    def broken(self) -> list[Guard]:
        """Margins that do not hold."""
        return [guard for guard in self.guards if not guard.held]

    @property
    def headline(self) -> str:
        """What may be said, in one sentence."""
        by_reward = self.reward.rate.low > 0.5
        by_judge = self.judge is not None and self.judge.rate.low > 0.5
        if by_reward and by_judge:
            start = "The aligned model wins, by the training reward and by the independent judge"
        elif by_reward and self.judge is None:
            start = (
                "The aligned model wins by its training reward; there is no independent judge to confirm it"
            )
        elif by_reward:
            start = "The aligned model wins by its training reward only; the independent judge does not agree"
        elif by_judge:
            start = "The aligned model wins by the independent judge, not by its training reward"
        else:
            start = "The aligned model is not shown to be better than its base"
        if self.broken:
            names = ", ".join(guard.name.replace("_", " ") for guard in self.broken)
            return f"{start}. Margins broken: {names}."
        return f"{start}. Every margin holds."


def judge_pairs(base: Side, aligned: Side, params: EvaluationParams, clusters: Clusters) -> Verdict:
    """Compare two sides measured on the same requests."""
    judged = None
    if base.judge is not None and aligned.judge is not None:
        judged = compare(base.judge, aligned.judge, clusters, params.tie_judge)
    dimensions = {
        name: compare(base.scores[name], aligned.scores[name], clusters)
        for name in base.scores
        if name in aligned.scores and np.isfinite(aligned.scores[name] - base.scores[name]).any()
    }
    motion = clusters.ratio(aligned.motion, base.motion)
    variety = clusters.ratio(aligned.diversity, base.diversity)
    semantic = [
        name for name, dimension in base.used.items() if dimension.group == "semantic" and name in dimensions
    ]
    return Verdict(
        reward=compare(base.reward, aligned.reward, clusters, params.tie_reward),
        judge=judged,
        dimensions=dimensions,
        p_holm=holm({name: paired.p_value for name, paired in dimensions.items()}),
        motion=(_mean(base.motion), _mean(aligned.motion)),
        motion_ratio=motion,
        diversity=(_mean(base.diversity), _mean(aligned.diversity)),
        diversity_ratio=variety,
        guards=_guards(params.margins, semantic, dimensions, motion, variety),
    )


def _guards(
    margins: Margins,
    semantic: list[str],
    dimensions: dict[str, Paired],
    motion: Interval,
    variety: Interval,
) -> list[Guard]:
    guards = [
        Guard(f"{name} change", dimensions[name].difference, -margins.semantic_drop, None)
        for name in semantic
    ]
    guards += [
        Guard(f"{name} change", dimensions[name].difference, -margins.steadiness_drop, None, strict=True)
        for name in STEADY
        if name in dimensions
    ]
    if np.isfinite(motion.value):
        guards.append(Guard("motion ratio", motion, 1 - margins.motion_change, 1 + margins.motion_change))
    if np.isfinite(variety.value):
        guards.append(Guard("diversity ratio", variety, 1 - margins.diversity_drop, None))
    return guards


def flat_metrics(verdict: Verdict, base: Side, aligned: Side, prompts: int) -> dict[str, float]:
    """The step's metrics.json: finite figures only; what is unavailable is absent, not zero."""
    found: dict[str, float] = {"pairs": float(verdict.reward.pairs), "prompts": float(prompts)}
    for name, paired in (("reward", verdict.reward), ("judge", verdict.judge)):
        if paired is None:
            continue
        found |= {
            f"win_rate_{name}": paired.rate.value,
            f"win_rate_{name}_low": paired.rate.low,
            f"win_rate_{name}_high": paired.rate.high,
            f"win_rate_{name}_low_clustered": paired.clustered_rate.low,
            f"ties_{name}": float(paired.ties),
        } | _paired_metrics(name, paired)
    for name, paired in verdict.dimensions.items():
        found |= _paired_metrics(name, paired) | {f"p_holm/{name}": verdict.p_holm[name]}
    for name, figures, ratio in (
        ("motion", verdict.motion, verdict.motion_ratio),
        ("diversity", verdict.diversity, verdict.diversity_ratio),
    ):
        found |= {f"base/{name}": figures[0], f"aligned/{name}": figures[1], f"{name}_ratio": ratio.value}
        found |= {f"{name}_ratio_low": ratio.low, f"{name}_ratio_high": ratio.high}
    if verdict.semantic:
        found["worst_semantic_delta"] = min(guard.figure.value for guard in verdict.semantic)
    for name in base.parts:
        found |= {
            f"base/judge_{name}": _mean(base.parts[name]),
            f"aligned/judge_{name}": _mean(aligned.parts[name]),
        }
    found |= {"base/motion_flow": _mean(base.flow), "aligned/motion_flow": _mean(aligned.flow)}
    found["margins_broken"] = float(len(verdict.broken))
    found["dimensions_unavailable"] = float(len(base.unavailable))
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The comparison as plain JSON values."""
    return {
        "headline": verdict.headline,
        "reward": asdict(verdict.reward),
        "judge": asdict(verdict.judge) if verdict.judge else None,
        "dimensions": {
            name: asdict(paired) | {"p_holm": verdict.p_holm[name]}
            for name, paired in verdict.dimensions.items()
        },
        "guards": [asdict(guard) | {"held": guard.held, "proven": guard.proven} for guard in verdict.guards],
    }


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
