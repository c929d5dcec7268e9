"""The loop under its guards: readings on their beat, the end of a run, the policy that is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from torch import Tensor

from components.alignment.loop import AlignmentLoop
from components.alignment.monitor.heldout_judge import HeldOutJudge
from components.alignment.monitor.reading import HeldoutReading
from components.alignment.outcome import load_best
from components.alignment.params import GuardParams
from components.alignment.policy import Policy
from components.generator.generator import Generator
from tests.alignment.tiny import PARAMS, Killed, kill_after, make_trainer, same

WATCHED = PARAMS.model_copy(
    update={"iterations": 6, "guards": GuardParams(every=1, patience=2, drift_limit=1e9, worse_limit=1.0)}
)
PROMPTS = tuple(f"h{number}" for number in range(12))


class Scripted:
    """A judge whose every clip scores, above the base, what the script says for that iteration."""

    def __init__(self, *script: float) -> None:
        self.script, self.asked = script, list[int]()
        self.weights: dict[int, dict[str, Tensor]] = {}

    def read(self, policy: Policy, iteration: int) -> HeldoutReading:
        self.asked.append(iteration)
        self.weights[iteration] = {name: value.clone() for name, value in policy.tensors().items()}
        scores = tuple(self.script[iteration - 1] + 0.001 * i for i in range(len(PROMPTS)))
        still = (1.0,) * len(PROMPTS)
        return HeldoutReading(iteration, PROMPTS, scores, (0.0,) * len(PROMPTS), still, still)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to take."""


def start(generator: Generator, folder: Path, judge: Scripted, **settings: object) -> AlignmentLoop:
    params = WATCHED.model_copy(update=settings)
    return make_trainer(generator, folder, params, judge=cast(HeldOutJudge, judge))


def test_readings_come_on_their_beat_and_after_the_last_iteration(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    judge = Scripted(*range(1, 7))
    guards = WATCHED.guards.model_copy(update={"every": 4})
    trainer = start(new_generator(), tmp_path, judge, guards=guards)
    trainer.run()
    assert judge.asked == [4, 6]
    assert [row.get("judge_difference") is not None for row in trainer.curve] == [0, 0, 0, 1, 0, 1]


def test_a_fall_ends_the_run_and_the_policy_before_it_is_taken(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    judge = Scripted(0.1, 0.5, -0.5, -0.6, 0.9, 0.9)
    trainer = start(new_generator(), tmp_path, judge)
    trainer.run()
    assert trainer.done == 4 and trainer.guards.stop is not None
    assert not same(trainer.policy.tensors(), judge.weights[2])
    load_best(trainer)
    assert same(trainer.policy.tensors(), judge.weights[2])
    assert trainer.guards.metrics()["kept_iteration"] == 2.0


def test_a_run_that_rises_is_published_as_it_ends(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    judge = Scripted(*range(1, 7))
    trainer = start(new_generator(), tmp_path, judge)
    trainer.run()
    assert trainer.done == 6 and trainer.guards.stop is None
    load_best(trainer)
    assert same(trainer.policy.tensors(), judge.weights[6])


@pytest.mark.parametrize("iteration", [2, 3])
def test_killed_between_the_falls_it_ends_as_it_would_have(
    new_generator: Callable[..., Generator], tmp_path: Path, iteration: int
) -> None:
    script = (0.1, 0.5, -0.5, -0.6, 0.9, 0.9)
    whole = start(new_generator(), tmp_path / "whole", Scripted(*script))
    whole.run()

    cut = start(new_generator(), tmp_path / "cut", Scripted(*script))
    cut.on_iteration = kill_after(iteration)
    with pytest.raises(Killed):
        cut.run()
    resumed = start(new_generator(), tmp_path / "cut", Scripted(*script))
    assert resumed.done == iteration
    resumed.run()
    assert resumed.curve == whole.curve and resumed.guards.state() == whole.guards.state()
    load_best(whole)
    load_best(resumed)
    assert same(resumed.policy.tensors(), whole.policy.tensors())
    # What has ended stays ended.
    again = start(new_generator(), tmp_path / "cut", Scripted(*script))
    again.run()
    assert again.done == 4


def test_the_reference_is_refreshed_only_where_the_judge_agrees(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    judge = Scripted(0.5, -0.5, 0.6, 0.7, 0.8, 0.9)
    trainer = start(new_generator(), tmp_path, judge, reference="judged", reference_sync_every=2)
    trainer.run()
    # One beat an iteration. The second reading was a fall: the beat of the third iteration is refused.
    assert [row["reference_version"] for row in trainer.curve] == [1, 2, 2, 3, 4, 5]
    assert trainer.reference.refused == 1
