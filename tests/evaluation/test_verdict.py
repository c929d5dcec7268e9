"""What may be said, given which figures."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluation.comparison import Clusters
from components.evaluation.dimensions import catalogue
from components.evaluation.measure import Side
from components.evaluation.params import EvaluationParams
from components.evaluation.verdict import Guard, Verdict, flat_metrics, judge_pairs
from components.runtime.intervals import Interval

N = 120


def side(
    reward: float, judge: float | None, color: float = 0.9, motion: float = 2.0, diversity: float = 0.2
) -> Side:
    rng = np.random.default_rng(0)
    color_scores = (np.arange(N) < round(color * N)).astype(float)
    return Side(
        scores={"color": color_scores, "temporal_flickering": np.full(N, 0.95)},
        used={name: catalogue()[name][0] for name in ("color", "temporal_flickering")},
        unavailable={"scene": "needs weights"},
        reward=reward + rng.normal(size=N),
        judge=None if judge is None else judge + 0.1 * rng.normal(size=N),
        parts={},
        motion=np.full(N, motion),
        moved="by detector",
        flow=np.full(N, np.nan),
        diversity=np.full(N, diversity),
        compared="seeds of one prompt",
    )


def verdict(base: Side, aligned: Side) -> Verdict:
    clusters = Clusters([i // 2 for i in range(N)], 2000, np.random.default_rng(1))
    return judge_pairs(base, aligned, EvaluationParams(), clusters)


def test_both_agree() -> None:
    found = verdict(side(0, 0.5), side(1, 0.6))
    assert (
        found.headline
        == "The aligned model wins, by the training reward and by the independent judge. Every margin holds."
    )
    assert not found.broken


def test_a_win_by_the_reward_alone_is_called_that() -> None:
    assert (
        "by its training reward only; the independent judge does not agree"
        in verdict(side(0, 0.5), side(1, 0.4)).headline
    )
    assert "no independent judge" in verdict(side(0, None), side(1, None)).headline


def test_no_win_is_called_that() -> None:
    assert "not shown to be better" in verdict(side(0, 0.5), side(0, 0.5)).headline
    assert "not by its training reward" in verdict(side(0, 0.5), side(-1, 0.6)).headline


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"color": 0.85}, "color change"),
        ({"motion": 1.6}, "motion ratio"),
        ({"motion": 2.4}, "motion ratio"),
        ({"diversity": 0.17}, "diversity ratio"),
    ],
)
def test_each_margin_breaks_alone_and_is_named(changed: dict[str, float], name: str) -> None:
    found = verdict(side(0, 0.5), side(1, 0.6, **changed))
    assert [guard.name for guard in found.broken] == [name]
    assert name in found.headline


def test_held_and_proven_differ() -> None:
    guard = Guard("color change", Interval(-0.01, -0.05, 0.02), -0.03, None)
    assert guard.held
    assert not guard.proven
    assert Guard("motion ratio", Interval(1.0, 0.9, 1.1), 0.85, 1.15).proven


def test_metrics_are_finite_and_leave_out_what_there_is_not() -> None:
    base, aligned = side(0, None), side(1, None, color=0.8)
    metrics = flat_metrics(verdict(base, aligned), base, aligned, 60)
    assert all(np.isfinite(value) for value in metrics.values())
    assert "win_rate_judge" not in metrics
    assert "base/motion_flow" not in metrics
    assert metrics["worst_semantic_delta"] == pytest.approx(-0.1)
    assert metrics["margins_broken"] == 1
    assert metrics["win_rate_reward"] == 1.0
