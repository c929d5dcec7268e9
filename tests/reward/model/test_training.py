"""Training: learns an order, draws its batches by name, resumes to the same bits."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from components.reward.ladders.ladder import Ladders, build, join
from components.reward.model import training
from components.reward.model.network import RewardNet
from components.reward.model.training import Batch, learning_rate, precision
from components.reward.params import RewardParams
from components.runtime.compute.distributed import Ranks
from components.runtime.errors import InputError, Interrupted
from tests.reward.conftest import textured, world
from tests.reward.model.trainings import changed, same, trained

T = TypeVar("T")


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


def test_an_interrupted_run_ends_in_the_same_bits(
    ladders: Ladders, tiny: RewardParams, tmp_path: Path
) -> None:
    params = changed(tiny, steps=24, checkpoint_every=4)
    whole, _ = trained(ladders, params, tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(ladders, params, tmp_path / "parts", stop_at=10)
    assert same(trained(ladders, params, tmp_path / "parts")[0], whole)


def test_the_global_random_state_neither_matters_nor_changes(
    ladders: Ladders, tiny: RewardParams, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    first, _ = trained(ladders, tiny, tmp_path / "a")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert same(trained(ladders, tiny, tmp_path / "b")[0], first)
    assert torch.equal(before, torch.get_rng_state())


def test_the_network_learns_the_order(ladders: Ladders, tiny: RewardParams, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "steps": 80,
        "batch": 8,
        "learning_rate": 0.005,
        "average": 0.9,
        "aspect_weight": 2.0,
    }
    # Of eight units none can be spared.
    params = changed(tiny, network={"dropout": 0.0}, **settings)
    network, curve = trained(ladders, params, tmp_path)
    with torch.no_grad():
        outputs = network(ladders.statistics.flatten(0, 1)).mean(0).unflatten(0, (len(ladders), -1))
    scores = outputs[..., 0]
    assert float((scores[:, :-1] > scores[:, 1:]).float().mean()) > 0.9
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert not network.training
    # An aspect moves with its own family and less with others.
    change = (outputs[:, 0, 1:] - outputs[:, -1, 1:]).abs()
    spatial = torch.tensor([recipe == ("blur",) for recipe in ladders.recipes])
    assert float(change[spatial, 0].mean()) > 1.1 * float(change[~spatial, 0].mean())


def test_a_pair_at_the_same_level_or_of_no_family_says_nothing_of_the_aspects(
    ladders: Ladders, tiny: RewardParams
) -> None:
    batch = Batch.of(ladders, torch.device("cpu"))
    assert batch.families.tolist()[:4] == [0, 3, 2, 3]
    scores = torch.randn(2, len(ladders), 3, 5, generator=torch.Generator().manual_seed(0))
    loss, parts = batch.loss(scores, tiny.training)
    weighted = (
        tiny.training.rank_weight * parts["rank"]
        + tiny.training.correlation_weight * parts["correlation"]
        + tiny.training.aspect_weight * parts["aspects"]
    )
    assert float(loss) == pytest.approx(float(weighted), rel=1e-6)
    none = replace(batch, families=torch.full_like(batch.families, -1))
    assert float(none.loss(scores, tiny.training)[1]["aspects"]) == 0.0
    assert float(none.loss(scores, tiny.training)[1]["rank"]) == float(parts["rank"])


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_gpu_multiplies_in_bfloat16_and_a_cpu_in_float32() -> None:
    with precision(torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with precision(torch.device("cuda")):
        assert torch.is_autocast_enabled("cuda") == torch.cuda.is_available()


def test_two_processes_train_the_same_bits(
    ladders: Ladders, tiny: RewardParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads stand for processes: each has its share of the slices and meets the other in the sums."""
    # They also share the one generator that first weights are drawn from, which processes do not.
    one_at_a_time, make = threading.Lock(), training._network

    def made(*args: Any) -> RewardNet:
        with one_at_a_time:
            return make(*args)

    monkeypatch.setattr(training, "_network", made)
    meeting, tables = threading.Barrier(2), dict[int, list[Tensor]]()

    class Half(Ranks):
        def all_reduce_mean(self, tensors: Iterable[Tensor]) -> None:
            tables[self.rank] = list(tensors)
            meeting.wait()
            means = [(a + b) / 2 for a, b in zip(tables[0], tables[1], strict=True)]
            meeting.wait()
            for tensor, mean in zip(tables[self.rank], means, strict=True):
                tensor.copy_(mean)
            meeting.wait()

        def all_gather_object(self, value: T) -> list[T]:
            return [value, value]

    # Dropout draws from the one global generator of both threads; without it they do not disturb each other.
    params = changed(tiny, network={"dropout": 0.0})
    alone, _ = trained(ladders, params, tmp_path / "alone")

    def half(rank: int) -> RewardNet:
        return trained(ladders, params, tmp_path / "two", ranks=Half(rank, 2))[0]

    with ThreadPoolExecutor(2) as pool:
        assert all(same(network, alone) for network in pool.map(half, range(2)))


def test_learning_rate_warms_up_and_falls_to_nothing(tiny: RewardParams) -> None:
    training = tiny.training.model_copy(update={"steps": 100, "warmup": 10, "learning_rate": 1.0})
    rates = [learning_rate(step, 100, training) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] < 0.001


def test_a_training_goes_on_from_given_weights_and_their_coding(
    ladders: Ladders, tiny: RewardParams, tmp_path: Path
) -> None:
    def go_on(steps: int, rate: float, name: str, data: Ladders) -> dict[str, Tensor]:
        params = changed(tiny, steps=steps, learning_rate=rate)
        return trained(data, params, tmp_path / name, initial=first)[0].state_dict()

    first, _ = trained(ladders, tiny, tmp_path / "first")
    before = {name: value.clone() for name, value in first.state_dict().items()}
    # Other clips would give other quantiles; those of the first training stay.
    other = ladders.where([source == "generated" for source in ladders.sources])
    still = go_on(1, 1e-12, "still", other)
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in still.items())
    on = go_on(4, 1e-3, "on", other)
    assert torch.equal(on["coding.knots"], before["coding.knots"])
    assert float((on["first.weight"] - before["first.weight"]).abs().max()) > 1e-4
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    with pytest.raises(InputError, match="must have its sizes"):
        trained(ladders, changed(tiny, network={"hidden": 9}), tmp_path / "wider", initial=first)


@pytest.mark.parametrize(
    "settings",
    [
        {"weight_decay": 1e30},
        {"rank_weight": 1e38, "margin": 1e38},
        {"correlation_weight": 1e39},
        {"aspect_weight": 1e300},
    ],
)
def test_a_training_that_diverges_ends_with_one_line(
    ladders: Ladders, tiny: RewardParams, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Where it happens and with which settings; the same again when it is tried again."""
    params = changed(tiny, steps=12, **settings)
    for _ in range(2):
        with pytest.raises(InputError, match=r"reward\.training: diverged at step \d+ of") as caught:
            trained(ladders, params, tmp_path)
        line = str(caught.value)
        assert "\n" not in line and "not a finite number" in line
        for name in ("learning_rate", "rank_weight", "correlation_weight", "margin", "weight_decay"):
            assert name in line


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 1},
        {"learning_rate": 1.0, "warmup": 0},
        {"warmup": 1000},
        {"rank_weight": 0, "correlation_weight": 0, "aspect_weight": 0},
        {"batch": 4096, "steps": 2},
        {"margin": 0},
    ],
)
def test_odd_settings_still_make_a_network_that_scores(
    ladders: Ladders, tiny: RewardParams, tmp_path: Path, settings: dict[str, Any]
) -> None:
    network, _ = trained(ladders, changed(tiny, **{"steps": 5, "checkpoint_every": 50, **settings}), tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())


def test_equal_labels_teach_order_alone(ladders: Ladders, tiny: RewardParams, tmp_path: Path) -> None:
    equal = replace(ladders, labels=torch.full_like(ladders.labels, 0.5))
    for name, data in (("all", equal), ("one", equal.take(torch.tensor([0])))):
        network, _ = trained(data, changed(tiny, steps=5), tmp_path / name)
        assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
