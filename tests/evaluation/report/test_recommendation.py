"""The page's verdict: what speaks for promotion and against it, and that the registry agrees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.evaluation.comparison.verdict import Verdict, flat_metrics
from components.evaluation.report.recommendation import limits, recommend
from components.registry.gate.gate import EvaluatedVersion, decide
from components.runtime.gate.rules import Margin
from components.runtime.gate.thresholds import Gate, Minimum, SourcedRule
from tests.evaluation.report.conftest import PAIRS, gate, judged, sides

WORSE = np.full(PAIRS, 0.4)
STEADY = {
    name: np.full(PAIRS, 0.55) for name in ("temporal_flickering", "motion_smoothness", "dynamic_degree")
}
CASES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "better in everything": ({}, "Worth promoting", []),
    "no judge": (
        {"judge": None},
        "Not shown to be worth promoting",
        ["no oracle judge can look at these prompts, so nothing confirms the gain"],
    ),
    "worse by the judge": (
        {"judge": WORSE},
        "Not worth promoting",
        [
            "the oracle judge prefers the aligned clip in 0 % of 24 pairs (interval 0 to 26 %), "
            "fewer than half"
        ],
    ),
    "colour lost": (
        {"scores": STEADY | {"color": WORSE}},
        "Not worth promoting",
        ["color change, the worst of what the prompt asks for, is \N{MINUS SIGN}0.099"],
    ),
    "nothing semantic measured": (
        {"scores": STEADY},
        "Not shown to be worth promoting",
        ["no dimension of the prompt's content could be measured"],
    ),
    "flickering": (
        {"scores": STEADY | {"color": WORSE + 0.2, "temporal_flickering": np.full(PAIRS, 0.48)}},
        "Not worth promoting",
        ["temporal flickering change is \N{MINUS SIGN}0.019"],
    ),
    "flickering, perhaps": (
        {"scores": STEADY | {"color": WORSE + 0.2, "temporal_flickering": np.linspace(0.3, 0.7, PAIRS)}},
        "Not worth promoting",
        ["temporal flickering change is 0.001 (interval"],
    ),
    "steadiness not measured": (
        {"scores": {"color": WORSE + 0.2}},
        "Not shown to be worth promoting",
        [
            "temporal flickering could not be measured",
            "motion smoothness could not be measured",
            "dynamic degree could not be measured",
            "temporal flickering could not be measured",
            "motion smoothness could not be measured",
        ],
    ),
    "frozen": (
        {"motion": np.full(PAIRS, 0.5)},
        "Not worth promoting",
        ["motion ratio is 0.250, outside what is allowed (0.850 to 1.150)"],
    ),
    "motion not measured": (
        {"motion": np.full(PAIRS, np.nan)},
        "Not shown to be worth promoting",
        ["motion could not be measured"],
    ),
    "all alike": (
        {"diversity": np.full(PAIRS, 0.01)},
        "Not worth promoting",
        ["diversity ratio is 0.100"],
    ),
}


def decided(verdict: Verdict, metrics: dict[str, float], rules: Gate) -> str:
    return decide(rules, EvaluatedVersion("", {"evaluation": metrics}, {}), None).outcome


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_its_reasons_and_the_registrys_rules_agree(name: str) -> None:
    changed, word, reasons = CASES[name]
    base, aligned = sides(**changed)
    if aligned.judge is None:
        base = replace(base, judge=None)
    if not np.isfinite(aligned.motion).any():
        base = replace(base, motion=aligned.motion)
    verdict = judged(base, aligned)
    found = recommend(verdict)
    assert found.word == word
    assert len(found.against) == len(reasons)
    for one, start in zip(found.against, reasons, strict=True):
        assert one.reason.startswith(start)
    metrics = flat_metrics(verdict, base, aligned)
    assert (decided(verdict, metrics, gate()) == "accepted") == found.promote


@pytest.mark.parametrize(("least", "word"), [(0.75, "Worth promoting"), (0.85, "Not worth promoting")])
def test_a_gate_that_allows_stiller_clips_is_the_pages_too(least: float, word: str) -> None:
    """The run whose motion is .80: the page once had a bound of its own, .85, whatever the gate said."""
    base, aligned = sides()
    aligned = replace(aligned, motion=0.8 * aligned.motion)
    rules = gate(absolute=(SourcedRule(metric="motion_ratio", at_least=least),))
    verdict = judged(base, aligned, rules)
    assert recommend(verdict).word == word
    metrics = flat_metrics(verdict, base, aligned)
    assert decided(verdict, metrics, rules) == ("accepted" if least == 0.75 else "refused")


FIGURES = st.floats(-1, 1.5)
BOUNDS = st.one_of(st.none(), st.floats(-1, 1.5))
NAMES = ["win_rate_judge", "win_rate_reward", "motion_ratio", "worst_semantic_delta", "diversity_ratio"]


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    rules = []
    for name in draw(st.lists(st.sampled_from([*NAMES, "absent"]), max_size=4)):
        bounds = {key: draw(BOUNDS) for key in ("at_least", "above", "at_most")}
        sure = draw(st.sampled_from([{}, {"confident": True}, {"unless_refuted": True}]))
        if any(bound is not None for bound in bounds.values()):
            absent = draw(st.sampled_from(["refuse", "skip"]))
            rules.append(SourcedRule(metric=name, when_absent=absent, **bounds, **sure))  # type: ignore[arg-type]
    margins = [
        Margin(metric=name, margin=draw(st.floats(0, 0.1)), confident=draw(st.booleans()))
        for name in draw(st.lists(st.sampled_from(["judge", "color", "absent"]), max_size=3))
    ]
    return Gate(
        minimum=Minimum(prompts=draw(st.integers(1, 24)), pairs=draw(st.integers(1, 48))),
        available=tuple(draw(st.lists(st.sampled_from(["color", "scene"]), max_size=2))),
        absolute=tuple(rules),
        base=tuple(margins),
    )


@given(gates(), st.floats(0.2, 1.5), st.floats(-0.2, 0.2), st.booleans())
@settings(max_examples=120, deadline=None)
def test_page_and_registry_never_contradict_each_other(
    rules: Gate, motion: float, gain: float, seen: bool
) -> None:
    base, aligned = sides()
    assert base.judge is not None
    aligned = replace(aligned, motion=motion * aligned.motion, judge=base.judge + gain if seen else None)
    verdict = judged(base, aligned, rules)
    metrics = flat_metrics(verdict, base, aligned)
    assert recommend(verdict).promote == (decided(verdict, metrics, rules) == "accepted")


def test_what_only_the_registry_can_decide_is_named() -> None:
    left = recommend(judged(*sides())).left
    assert left == (
        "judge at most 0.02 below the champion's, whole interval",
        "reward at most 0.05 below the champion's, unless refuted",
    )


def test_the_dashed_lines_are_the_gates_bounds() -> None:
    rules = gate(
        absolute=(SourcedRule(metric="worst_semantic_delta", at_least=-0.2),),
        base=(Margin(metric="motion_smoothness", margin=0.07),),
    )
    assert limits(judged(*sides(), rules)) == {"color": -0.2, "motion_smoothness": -0.07}


def test_a_win_that_may_be_chance_is_called_that() -> None:
    base, _ = sides()
    rng = np.random.default_rng(3)
    judge = np.asarray(base.judge) + rng.permutation([0.1] * 14 + [-0.1] * 10)
    found = recommend(judged(base, sides(judge=judge)[1]))
    assert "in 58 % of 24 pairs (interval 2" in found.against[0].reason
    assert found.against[0].reason.endswith("which may be chance")


def test_too_few_prompts_show_nothing() -> None:
    """9 prompts, all of them won by far: no verdict, on the page as in the registry."""
    base, aligned = sides()
    few = {name: values[:18] for name, values in base.scores.items()}
    cut = [
        replace(
            side,
            scores={name: side.scores[name][:18] for name in few},
            **{
                name: None if getattr(side, name) is None else getattr(side, name)[:18]
                for name in ("reward", "judge", "motion", "flow", "diversity")
            },
        )
        for side in (base, aligned)
    ]
    verdict = judged(*cut)
    found = recommend(verdict)
    assert found.word == "Not shown to be worth promoting"
    assert "9 prompts are too few" in found.against[0].reason
    assert verdict.headline == "Nothing is shown: 9 prompts, an interval needs 10 or more."
    metrics = flat_metrics(verdict, *cut)
    assert not any(name.endswith(("_low", "_high")) for name in metrics)
    assert decided(verdict, metrics, gate()) == "refused"


def test_a_rule_held_by_the_estimate_only_says_so() -> None:
    base, _ = sides()
    color = base.scores["color"] + np.tile([0.3, 0.3, -0.3, -0.25], PAIRS // 4)
    found = recommend(judged(base, sides(scores=STEADY | {"color": color})[1]))
    (kept,) = [one for one in found.requirements if one.name == "color change"]
    assert kept.held
    assert not kept.check.sure
    assert "its interval reaches out of it" in kept.reason
