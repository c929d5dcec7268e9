"""The page's verdict: what speaks for promotion and against it, and that the registry agrees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from components.evaluation.report.standing import standing
from components.evaluation.verdict import flat_metrics
from components.registry.gate import Standing, decide
from components.registry.gatefile import Minimum, load_gate
from tests.evaluation.report.conftest import PAIRS, judged, sides

WORSE = np.full(PAIRS, 0.4)
STEADY = {
    name: np.full(PAIRS, 0.55) for name in ("temporal_flickering", "motion_smoothness", "dynamic_degree")
}
CASES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "better in everything": ({}, "Worth promoting", []),
    "no judge": (
        {"judge": None},
        "Not shown to be worth promoting",
        ["no independent judge can look at these prompts, so nothing confirms the gain"],
    ),
    "worse by the judge": (
        {"judge": WORSE},
        "Not worth promoting",
        [
            "the independent judge prefers the aligned clip in 0 of 100 pairs (interval 0 to 14), "
            "fewer than half"
        ],
    ),
    "colour lost": (
        {"scores": STEADY | {"color": WORSE}},
        "Not worth promoting",
        ["color change is \N{MINUS SIGN}0.099"],
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
        ],
    ),
    "frozen": (
        {"motion": np.full(PAIRS, 0.5)},
        "Not worth promoting",
        ["motion ratio is 0.250 (interval 0.250 to 0.250), outside what is allowed (0.850 to 1.150)"],
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


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_its_reasons_and_the_registrys_rules_agree(name: str) -> None:
    changed, word, reasons = CASES[name]
    base, aligned = sides(**changed)
    if aligned.judge is None:
        base = replace(base, judge=None)
    if not np.isfinite(aligned.motion).any():
        base = replace(base, motion=aligned.motion)
    verdict = judged(base, aligned)
    found = standing(verdict)
    assert found.word == word
    assert len(found.against) == len(reasons)
    for one, start in zip(found.against, reasons, strict=True):
        assert one.reason.startswith(start)
    metrics = {"evaluation": flat_metrics(verdict, base, aligned, PAIRS // 2)}
    # How much evidence is enough is the registry's own question.
    gate = load_gate(None).model_copy(update={"minimum": Minimum(prompts=1, pairs=1)})
    decision = decide(gate, Standing("", metrics, {}), None)
    assert (decision.outcome == "accepted") == found.worthy


def test_a_win_that_may_be_chance_is_called_that() -> None:
    base, _ = sides()
    rng = np.random.default_rng(3)
    judge = np.asarray(base.judge) + rng.permutation([0.1] * 14 + [-0.1] * 10)
    found = standing(judged(base, sides(judge=judge)[1]))
    assert "in 58 of 100 pairs (interval 39 to 76), which may be chance" in found.against[0].reason


def test_a_margin_held_by_the_estimate_only_says_so() -> None:
    base, _ = sides()
    color = base.scores["color"] + np.tile([0.3, 0.3, -0.3, -0.25], PAIRS // 4)
    found = standing(judged(base, sides(scores={"color": color})[1]))
    (kept,) = [one for one in found.requirements if one.name == "color change"]
    assert kept.held
    assert not kept.proven
    assert "its interval reaches out of it" in kept.reason
