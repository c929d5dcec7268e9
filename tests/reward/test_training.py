"""Training: learns an order, draws its batches by name, resumes to the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.reward.ladders import Ladders, build, join
from components.reward.params import RewardParams
from components.reward.training import batch_of_step, learning_rate, train
from components.runtime.errors import Interrupted
from components.runtime.interrupts import StopSignal
from tests.reward.conftest import textured, world


@pytest.fixture(scope="module")
def ladders() -> Ladders:
    levels = torch.tensor([[0, 2, 5]] * 8)
    recipes = [("blur",), ("frame_noise",), ("freeze",), ("flicker_white",)] * 2
    names = [f"c{i}" for i in range(8)]
    return join(
        [
            build(world(8), names, recipes, levels, source="world", seed=0, labelled=True),
            build(textured(8), names, recipes, levels, source="generated", seed=0, labelled=False),
        ]
    )


def weights(
    ladders: Ladders, params: RewardParams, folder: Path, stop_at: int | None = None
) -> dict[str, Tensor]:
    stop = StopSignal()

    def report(figures: dict[str, float], done: int) -> None:
        if stop_at is not None and done >= stop_at:
            stop.requested = True

    network, _ = train(
        ladders, params, checkpoints=folder, stop=stop, device=torch.device("cpu"), report=report
    )
    return network.state_dict()


def test_an_interrupted_run_ends_in_the_same_bits(
    ladders: Ladders, tiny: RewardParams, tmp_path: Path
) -> None:
    params = tiny.model_copy(
        update={
            "training": tiny.training.model_copy(
                update={"steps": 24, "pixel_steps": 16, "checkpoint_every": 4}
            )
        }
    )
    whole = weights(ladders, params, tmp_path / "whole")
    with pytest.raises(Interrupted):
        weights(ladders, params, tmp_path / "parts", stop_at=10)
    resumed = weights(ladders, params, tmp_path / "parts")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_the_global_random_state_neither_matters_nor_changes(
    ladders: Ladders, tiny: RewardParams, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    first = weights(ladders, tiny, tmp_path / "a")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = weights(ladders, tiny, tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())


def test_the_network_learns_the_order(ladders: Ladders, tiny: RewardParams, tmp_path: Path) -> None:
    training = tiny.training.model_copy(
        update={"steps": 80, "pixel_steps": 30, "batch": 8, "learning_rate": 0.005, "average": 0.9}
    )
    network, curve = train(
        ladders, tiny.model_copy(update={"training": training}), checkpoints=tmp_path, stop=StopSignal(),
        device=torch.device("cpu"),
    )  # fmt: skip
    pixels = ladders.frames.flatten(0, 1).float() / 255.0
    with torch.no_grad():
        scores = network(pixels, ladders.statistics.flatten(0, 1)).reshape(len(ladders), -1)
    assert float((scores[:, :-1] > scores[:, 1:]).float().mean()) > 0.9
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert not network.training


def test_every_ladder_comes_once_a_round_whatever_the_batch() -> None:
    for batch in (4, 7):
        drawn = torch.cat([batch_of_step(step, 10, batch, seed=0) for step in range(30)])
        for start in range(0, len(drawn) - 9, 10):
            assert sorted(drawn[start : start + 10].tolist()) == list(range(10))
    assert torch.equal(batch_of_step(5, 10, 4, 0), batch_of_step(5, 10, 4, 0))
    assert not torch.equal(batch_of_step(5, 10, 4, 0), batch_of_step(5, 10, 4, 1))


def test_learning_rate_warms_up_and_falls_to_nothing(tiny: RewardParams) -> None:
    training = tiny.training.model_copy(update={"steps": 100, "warmup": 10, "learning_rate": 1.0})
    rates = [learning_rate(step, 100, training) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] < 0.001
