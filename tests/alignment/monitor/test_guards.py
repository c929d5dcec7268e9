"""The guards: each alarm against a run that must raise it and one that must not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest

from components.alignment.monitor.guards import ALARMS, Guards
from components.alignment.monitor.reading import HeldoutReading
from components.alignment.params import GuardParams

PARAMS = GuardParams(
    every=3, clips=8, patience=2, least_motion=0.8, drift_limit=0.05, worse_limit=0.75
)  # fmt: skip
NOISE = np.random.default_rng(0).normal(0, 0.05, 40)


def reading(
    done: int, score: float | None, motion: float = 1.0, noise: Sequence[float] = tuple(NOISE)
) -> HeldoutReading:
    """40 prompts: the base scores 0, the policy `score` with some noise, or there is no judge.

    Two readings that differ by the same on every prompt would have no spread: each has some of its own.
    """
    jitter = np.random.default_rng(done).normal(0, 0.005, 40)
    own = np.asarray(noise) + jitter - jitter.mean()
    scores = () if score is None else tuple(float(score + value) for value in own)
    base = () if score is None else (0.0,) * 40
    return HeldoutReading(done, tuple(f"p{n}" for n in range(40)), scores, base, (motion,) * 40, (1.0,) * 40)


def row(iteration: int, **figures: float) -> dict[str, float]:
    return {"iteration": float(iteration), **figures}


def test_params() -> None:
    # A new one is a decision.
    assert list(GuardParams.model_fields) == [
        "every", "clips", "patience", "least_motion", "drift_limit", "worse_limit",
    ]  # fmt: skip


def test_readings_come_on_their_beat_and_at_the_end() -> None:
    guards = Guards(PARAMS)
    assert [done for done in range(1, 9) if guards.due(done, 8)] == [3, 6, 8]
    assert not any(Guards(GuardParams(every=0)).due(done, 8) for done in range(1, 9))


def test_drift_over_its_limit_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    guards = Guards(PARAMS)
    # Means over four: .025, .045, .065: one high figure alone is no drift.
    for iteration, drift in enumerate([0.01, 0.01, 0.01, 0.07, 0.09]):
        guards.after_iteration(row(iteration, drift_from_base=drift))
        assert guards.stop is None
    guards.after_iteration(row(5, drift_from_base=0.09))
    assert guards.stop is not None and "iteration 6" in guards.stop and "0.065" in guards.stop
    guards.after_iteration(row(6, drift_from_base=0.2))
    assert guards.metrics()["alarms_drift"] == 2 and guards.metrics()["stopped_early"] == 1
    # Told once, with its figure.
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "guard drift" in told[0] and "0.065" in told[0] and "0.05" in told[0]


def test_a_drift_that_is_no_number_ends_the_run_at_once() -> None:
    guards = Guards(PARAMS)
    guards.after_iteration(row(0, drift_from_base=math.nan))
    assert guards.stop is not None and json.loads(json.dumps(guards.metrics()))["alarms_drift"] == 1


def test_winners_that_get_worse_are_told_and_end_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    guards = Guards(PARAMS)
    for iteration in range(3):
        guards.after_iteration(row(iteration, winner_above_reference=1.0))
        guards.after_iteration(row(iteration))  # an iteration without pairs tells nothing
    assert guards.metrics()["alarms_winners_worse"] == 0
    guards.after_iteration(row(3, winner_above_reference=0.5))
    guards.after_iteration(row(4, winner_above_reference=0.5))
    assert guards.metrics()["alarms_winners_worse"] == 1 and guards.stop is None
    assert "0.875" in capsys.readouterr().err


def test_the_last_policy_that_has_not_fallen_is_kept() -> None:
    guards = Guards(PARAMS)
    found = []
    # .10 -> .12 is better; .118 is not below .12 beyond the noise of another draw; .02 is.
    other = np.random.default_rng(1).normal(0, 0.05, 40)
    other -= other.mean() - NOISE.mean()
    for done, score, noise in ((3, 0.10, NOISE), (6, 0.12, NOISE), (9, 0.118, other), (12, 0.02, NOISE)):
        found.append((guards.after_reading(reading(done, score, noise=noise)), guards.kept_iteration))
    assert found == [("best", 3), ("best", 6), ("level", 9), ("regressed", 9)]
    assert not guards.agrees and guards.stop is None
    # Back up: the fall was one reading, not a row of them.
    assert guards.after_reading(reading(15, 0.13)) == "best" and guards.agrees
    for done in (18, 21):
        assert guards.after_reading(reading(done, 0.03)) == "regressed"
    assert guards.stop is not None and "the policy of 15 is kept" in guards.stop
    metrics = guards.metrics()
    assert metrics["kept_iteration"] == 15 and metrics["held_out_readings"] == 7
    assert metrics["judge_difference"] == pytest.approx(0.13 + NOISE.mean())
    assert metrics["alarms_judge"] == 3


def test_below_the_base_is_fallen_from_the_start() -> None:
    guards = Guards(PARAMS)
    assert guards.after_reading(reading(3, -0.2)) == "regressed"
    assert guards.after_reading(reading(6, -0.3)) == "regressed"
    assert guards.stop is not None and "no earlier policy is kept" in guards.stop
    assert guards.kept_iteration is None and "kept_iteration" not in guards.metrics()


@pytest.mark.parametrize("score", [None, 0.3])
def test_a_policy_that_freezes_is_caught_with_and_without_a_judge(
    score: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    guards = Guards(PARAMS)
    assert guards.after_reading(reading(3, score, motion=0.9)) == "best"
    assert guards.after_reading(reading(6, score, motion=0.7)) == "regressed"
    assert guards.after_reading(reading(9, score, motion=0.5)) == "regressed"
    assert guards.kept_iteration == 3 and guards.stop is not None
    assert guards.metrics()["alarms_motion"] == 2
    assert guards.metrics()["held_out_motion"] == pytest.approx(0.9)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1 and "0.7 of the base's, minimum 0.8" in warnings[0]


def test_without_a_judge_the_last_moving_policy_is_kept() -> None:
    guards = Guards(PARAMS)
    assert [guards.after_reading(reading(done, None)) for done in (3, 6)] == ["best", "best"]
    assert guards.kept_iteration == 6 and "judge_difference" not in guards.metrics()


def test_a_resumed_run_goes_on_alike() -> None:
    def go(guards: Guards, part: range) -> Guards:
        for number in part:
            guards.after_iteration(row(number, drift_from_base=0.02 * number, winner_above_reference=0.9))
            guards.after_reading(reading(number + 1, 0.2 - 0.04 * number))
        return guards

    whole = go(Guards(PARAMS), range(5))
    cut = go(Guards(PARAMS), range(2))
    resumed = Guards(PARAMS)
    resumed.restore(json.loads(json.dumps(cut.state())))
    go(resumed, range(2, 5))
    assert resumed.state() == whole.state() and resumed.metrics() == whole.metrics()
    assert whole.stop is not None


def test_metrics_are_flat_and_finite() -> None:
    guards = Guards(PARAMS)
    assert set(guards.metrics()) == {
        *(f"alarms_{name}" for name in ALARMS), "held_out_readings", "stopped_early",
    }  # fmt: skip
    lone = HeldoutReading(3, ("p", "p"), (0.2, 0.4), (0.0, 0.0), (1.0, 1.0), (1.0, 1.0))
    guards.after_reading(lone)  # one prompt has a mean and no interval
    found = guards.metrics()
    assert found["judge_difference"] == pytest.approx(0.3) and "judge_low" not in found
    assert all(math.isfinite(value) for value in found.values())
