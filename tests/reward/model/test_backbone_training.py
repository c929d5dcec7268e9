"""Training a reward with a backbone: it learns, resumes, shares its work, and goes on from another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from components.reward.features.fragments import fragments
from components.reward.ladders.ladder import Ladders, build, join
from components.reward.ladders.ladder_file import write_ladders
from components.reward.model.backbone import Backbone
from components.reward.model.network import RewardNet
from components.reward.model.training import Batch
from components.reward.params import RewardParams
from components.runtime.errors import InputError, Interrupted
from tests.reward.conftest import textured, world
from tests.reward.model.tiny_backbones import write
from tests.reward.model.trainings import changed, same, trained


@pytest.fixture(scope="module")
def ladders() -> Ladders:
    levels = torch.tensor([[0, 2, 5]] * 4)
    recipes = [("blur",), ("frame_noise",), ("pixelate",), ("flicker_white",)]
    names = [f"c{i}" for i in range(4)]
    return join(
        [
            build(world(4), names, recipes, levels, source="world", seed=0, labelled=True),
            build(textured(4), names, recipes, levels, source="generated", seed=0, labelled=False),
        ]
    )


@pytest.fixture(params=["videomae", "dinov2"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def params_for(
    tiny: RewardParams, folder: Path, kind: str, steps: int, batch: int = 4, **network: object
) -> RewardParams:
    changes = {"backbone": str(write(folder / kind, kind)), "hidden": 32, "embedding": 32, **network}
    training = {"steps": steps, "batch": batch, "checkpoint_every": 3, "learning_rate": 0.02, "average": 0.5}
    return changed(tiny, network=changes, **training)


def original(params: RewardParams) -> dict[str, Tensor]:
    return Backbone.load(Path(params.network.backbone)).state_dict()


def moved(network: RewardNet, params: RewardParams) -> list[str]:
    """Names of the backbone's tensors that training changed."""
    assert network.backbone is not None
    now = network.backbone.state_dict()
    return [name for name, value in original(params).items() if not torch.equal(value, now[name])]


def test_it_learns_the_order_by_what_the_backbone_sees(
    ladders: Ladders, tiny: RewardParams, kind: str, tmp_path: Path
) -> None:
    params = params_for(tiny, tmp_path, kind, 30, batch=8, dropout=0.0)
    # Statistics that say nothing: what is learnt comes through the backbone.
    blind = join([ladders])
    blind.statistics = torch.zeros_like(ladders.statistics)
    network, curve = trained(blind, params, tmp_path / "run")
    assert network.backbone is not None and not network.training
    views = fragments(blind.frames.flatten(0, 1), network.backbone.canvas)
    with torch.no_grad():
        scores = network(blind.statistics.flatten(0, 1), views).mean(0)[:, 0].unflatten(0, (-1, 3))
    assert float((scores[:, :-1] > scores[:, 1:]).float().mean()) > 0.8
    assert curve[-1]["rank"] < 0.7 * curve[0]["rank"]
    assert len(moved(network, params)) == len(original(params))


def test_an_interrupted_run_ends_in_the_same_bits(
    ladders: Ladders, tiny: RewardParams, kind: str, tmp_path: Path
) -> None:
    params = params_for(tiny, tmp_path, kind, 12)
    whole, _ = trained(ladders, params, tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(ladders, params, tmp_path / "parts", stop_at=10)
    assert same(trained(ladders, params, tmp_path / "parts")[0], whole)


@pytest.mark.parametrize("kind", ["videomae", pytest.param("dinov2", marks=pytest.mark.slow)])
def test_two_processes_train_the_same_bits(
    ladders: Ladders, tiny: RewardParams, kind: str, tmp_path: Path
) -> None:
    params = params_for(tiny, tmp_path, kind, 4, dropout=0.1)
    alone, _ = trained(ladders, params, tmp_path / "alone")
    write_ladders(tmp_path / "ladders", ladders, {})
    (tmp_path / "params.json").write_text(params.model_dump_json())
    program = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for rank in range(2):
        together = load_file(tmp_path / f"rank{rank}.safetensors")
        assert all(torch.equal(value, together[name]) for name, value in alone.state_dict().items())


def test_a_frozen_backbone_stays_as_it_was_and_out_of_the_checkpoints(
    ladders: Ladders, tiny: RewardParams, kind: str, tmp_path: Path
) -> None:
    params = params_for(tiny, tmp_path, kind, 8, backbone_rate=0.0)
    network, _ = trained(ladders, params, tmp_path / "run")
    assert moved(network, params) == []
    names = load_file(next(iter(sorted((tmp_path / "run").glob("step-*")))) / "tensors.safetensors").keys()
    assert not [name for name in names if "backbone" in name]
    assert [name for name in names if name.startswith("average.temporal")]
    with pytest.raises(Interrupted):
        trained(ladders, params, tmp_path / "parts", stop_at=8)
    assert same(trained(ladders, params, tmp_path / "parts")[0], network)


def test_a_slower_backbone_moves_less(ladders: Ladders, tiny: RewardParams, tmp_path: Path) -> None:
    def way(rate: float) -> float:
        params = params_for(tiny, tmp_path, "dinov2", 4, backbone_rate=rate)
        network, _ = trained(ladders, params, tmp_path / f"run{rate}")
        assert network.backbone is not None
        now = network.backbone.state_dict()
        return sum(float((now[name] - value).abs().sum()) for name, value in original(params).items())

    assert way(0.01) < 0.2 * way(0.1)


def test_a_training_goes_on_from_another_without_its_source(
    ladders: Ladders, tiny: RewardParams, kind: str, tmp_path: Path
) -> None:
    params = params_for(tiny, tmp_path, kind, 6)
    first, _ = trained(ladders, params, tmp_path / "first")
    before = {name: value.clone() for name, value in first.state_dict().items()}
    gone = changed(params, network={"backbone": "/gone"})
    still = changed(gone, steps=1, learning_rate=1e-12)
    again, _ = trained(ladders, still, tmp_path / "again", initial=first)
    for name, value in again.state_dict().items():
        assert torch.allclose(value, before[name], atol=1e-6), name
    on, _ = trained(ladders, gone, tmp_path / "on", initial=first)
    assert not same(on, again)
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    without = changed(params, network={"backbone": ""})
    with pytest.raises(InputError, match="must have its sizes"):
        trained(ladders, without, tmp_path / "without", initial=first)


def test_without_pixels_there_is_nothing_to_look_at(
    ladders: Ladders, tiny: RewardParams, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="shards with pixels"):
        trained(ladders.without_frames(), params_for(tiny, tmp_path, "dinov2", 4), tmp_path / "run")


def test_the_clips_of_a_ladder_are_cut_at_the_same_places(
    ladders: Ladders, tiny: RewardParams, tmp_path: Path
) -> None:
    backbone = Backbone.load(write(tmp_path, "dinov2", image_size=16))
    (tmp_path / "preprocessor_config.json").unlink()
    backbone = Backbone.load(tmp_path)
    assert backbone.canvas.height == 16  # half the clips' side: there is something to choose
    frames = ladders.frames[:, :1].expand(-1, 3, -1, -1, -1, -1).clone()  # three times the same clip
    batch = Batch.of(Ladders(**{**vars(ladders), "frames": frames}), torch.device("cpu"))
    views = batch.views(backbone.canvas, 0, 8, seed=1).unflatten(0, (8, 3))
    assert torch.equal(views[:, 0], views[:, 1]) and torch.equal(views[:, 0], views[:, 2])
    # A slice has its own ladders' places, whichever process cuts it; another step cuts elsewhere.
    assert torch.equal(batch.views(backbone.canvas, 2, 4, seed=1).unflatten(0, (2, 3)), views[2:4])
    assert not torch.equal(batch.views(backbone.canvas, 0, 8, seed=2).unflatten(0, (8, 3)), views)
