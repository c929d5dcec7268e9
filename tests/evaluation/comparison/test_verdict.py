"""What may be said, given which figures."""

from __future__ import annotations

import json

import numpy as np
import pytest

from components.evaluation.comparison.measure import Side
from components.evaluation.comparison.verdict import Verdict, as_json, flat_metrics, judge_pairs, put_to_gate
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.params import EvaluationParams
from components.runtime.gate.thresholds import Gate, SourcedRule
from components.runtime.stats import Clusters

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


RULES = Gate.model_validate(
    {
        "minimum": {"prompts": 1, "pairs": 1},
        "absolute": [
            {"metric": "worst_semantic_delta", "at_least": -0.03},
            {"metric": "motion_ratio", "at_least": 0.85, "at_most": 1.15},
            {"metric": "diversity_ratio", "at_least": 0.9},
        ],
    }
)


def verdict(base: Side, aligned: Side, rules: Gate = RULES) -> Verdict:
    clusters = Clusters([i // 2 for i in range(N)], 2000, np.random.default_rng(1))
    found = judge_pairs(base, aligned, EvaluationParams(), clusters)
    metrics = {"evaluation": flat_metrics(found, base, aligned)}
    return put_to_gate(found, rules, metrics, base.unavailable)


def test_both_agree() -> None:
    found = verdict(side(0, 0.5), side(1, 0.6))
    assert found.headline == (
        "The aligned model wins, by the training reward and by the oracle judge. "
        "Every rule of the gate holds that needs no champion."
    )
    assert not found.broken


def test_a_win_by_the_reward_alone_is_called_that() -> None:
    assert (
        "by its training reward only; the oracle judge does not agree"
        in verdict(side(0, 0.5), side(1, 0.4)).headline
    )
    assert "no oracle judge" in verdict(side(0, None), side(1, None)).headline


def test_no_win_is_called_that() -> None:
    assert "not shown to be better" in verdict(side(0, 0.5), side(0, 0.5)).headline
    assert "not by its training reward" in verdict(side(0, 0.5), side(-1, 0.6)).headline


@pytest.mark.parametrize(
    ("changed", "metric"),
    [
        ({"color": 0.85}, "worst_semantic_delta"),
        ({"motion": 1.6}, "motion_ratio"),
        ({"motion": 2.4}, "motion_ratio"),
        ({"diversity": 0.17}, "diversity_ratio"),
    ],
)
def test_each_rule_fails_alone_and_is_named(changed: dict[str, float], metric: str) -> None:
    found = verdict(side(0, 0.5), side(1, 0.6, **changed))
    assert [check.metric for check in found.broken] == [metric]
    assert found.broken[0].rule in found.headline


def test_the_worst_semantic_change_has_the_lowest_ends() -> None:
    """Where these keep a bound, the whole interval of every semantic dimension does."""
    base, aligned = side(0, 0.5), side(1, 0.6, color=0.8)
    found = verdict(base, aligned)
    assert found.worst_semantic == found.dimensions["color"].difference
    assert found.worst_semantic is not None and found.worst_semantic.low < -0.1
    strict = Gate(absolute=(SourcedRule(metric="worst_semantic_delta", at_least=-0.12, confident=True),))
    assert "worst_semantic_delta >= -0.12, whole interval" in verdict(base, aligned, strict).headline


def test_json_is_plain_and_says_by_which_rules() -> None:
    found = as_json(verdict(side(0, 0.5), side(1, 0.6)))
    assert "Infinity" not in json.dumps(found)
    assert found["gate_digest"] == RULES.digest
    assert [check["metric"] for check in found["checks"]][-1] == "diversity_ratio"


def test_metrics_are_finite_and_leave_out_what_there_is_not() -> None:
    base, aligned = side(0, None), side(1, None, color=0.8)
    metrics = flat_metrics(verdict(base, aligned), base, aligned)
    assert all(np.isfinite(value) for value in metrics.values())
    assert "win_rate_judge" not in metrics
    assert "base/motion_flow" not in metrics
    assert metrics["worst_semantic_delta"] == pytest.approx(-0.1)
    assert metrics["win_rate_reward"] == 1.0
