"""Small real inputs for the reward: clips of the world, moving texture, and tiny artifacts of the steps
before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from components.corpus.dataset import ClipRecord, write_corpus
from components.corpus.prompts import Prompt
from components.corpus.world.render import render
from components.corpus.world.scene import all_scenes
from components.reward.features.handcrafted import clip_statistics
from components.reward.model.network import RewardNet
from components.reward.params import NetworkParams, RewardParams
from components.reward.scoring.trained import TrainedReward
from components.runtime.artifacts.publish import publish
from components.runtime.params import StepParams
from components.video.clip import ClipFormat
from components.video.filters import gaussian_blur

FRAMES, SIDE = 5, 32


def textured(count: int, frames: int = FRAMES, side: int = SIDE, seed: int = 0) -> Tensor:
    """uint8 (N, T, 3, H, W): smooth random colour fields that slide, a stand-in for footage."""
    stream = torch.Generator().manual_seed(seed)
    wide = torch.randn(count, 3, side, side + 2 * frames, generator=stream)
    field = 0.6 * gaussian_blur(wide, 1.5) * 3 + 0.4 * gaussian_blur(wide, 5.0) * 10
    field = (0.5 + 0.18 * field).clamp(0, 1)
    clips = torch.stack([field[..., 2 * t : 2 * t + side] for t in range(frames)], dim=1)
    return (clips * 255).round().to(torch.uint8)


def world(count: int, frames: int = FRAMES, side: int = SIDE, seed: int = 0) -> Tensor:
    """uint8 (N, T, 3, H, W): clips of the miniature world."""
    scenes = all_scenes()
    return torch.stack(
        [render(scenes[(31 * i + seed) % len(scenes)], seed + i, frames, side) for i in range(count)]
    )


@pytest.fixture(scope="session")
def clips() -> Tensor:
    """float (8, 9, 3, 48, 48): half world, half texture."""
    return torch.cat((world(4, 9, 48), textured(4, 9, 48))).float() / 255.0


def write_inputs(folder: Path, *, with_world: bool = True) -> tuple[Path, Path]:
    """A tiny corpus and a tiny generator artifact: their folders."""
    clips: list[tuple[ClipRecord, Tensor]] = []
    for offset, (split, count) in enumerate((("train", 8), ("val", 2), ("test", 6))):
        if with_world:
            for i, frames in enumerate(world(count, seed=100 * offset)):
                clips.append((ClipRecord(f"w{split}{i}", "world", f"world/{split}{i}", split, "-"), frames))
        for i, frames in enumerate(textured(count, seed=offset)):
            clips.append((ClipRecord(f"f{split}{i}", "footage", f"video/{split}{i}", split, None), frames))
    texts = (
        [scene.caption for scene in all_scenes()[::97]][:6] if with_world else [f"film {i}" for i in range(6)]
    )
    corpus, generator = folder / "corpus", folder / "generator"
    header: dict[str, Any] = {"fps": 8.0, "frames": FRAMES, "height": SIDE, "width": SIDE}
    with publish(str(corpus), step="corpus", params=StepParams(), inputs={}) as workspace:
        write_corpus(
            workspace.dir, header, clips, [Prompt(f"p{i}", text, "train") for i, text in enumerate(texts)]
        )
        (workspace.dir / "metrics.json").write_text("{}")
    with publish(str(generator), step="generator", params=StepParams(), inputs={}) as workspace:
        originals = world(6, seed=7)
        blurred = (gaussian_blur(originals.float(), 0.6)).round().to(torch.uint8)
        samples = world(18, seed=50).reshape(6, 3, FRAMES, 3, SIDE, SIDE)
        tensors = {"frames": samples, "reconstructions": blurred, "reconstructed_from": originals}
        save_file({k: v.contiguous() for k, v in tensors.items()}, workspace.dir / "samples.safetensors")
        rows = [{"prompt_id": f"p{i}", "prompt": text} for i, text in enumerate(texts)]
        (workspace.dir / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (workspace.dir / "metrics.json").write_text("{}")
    return corpus, generator


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def tiny() -> RewardParams:
    """Params that train in about two seconds and whose gate lets anything pass."""
    return RewardParams.model_validate(
        {
            "run": {"device": "cpu"},
            "ladders": {
                "world": 12,
                "footage": 12,
                "generated": 12,
                "reconstructed": 4,
                "few_steps": 0,
                "composed": 0.2,
            },
            "network": {"members": 2, "hidden": 8, "embedding": 8, "bins": 2},
            "training": {"steps": 60, "batch": 6, "warmup": 2, "checkpoint_every": 5},
            "card": {"contents_per_type": 1, "attacks": 4, "baselines": False},
            "gate": {
                "srcc_world": -1,
                "srcc_footage": -1,
                "srcc_all": -1,
                "srcc_heldout_types": -1,
                "reference_above": 0,
                "adjacent_ordered": 0,
                "two_apart_ordered": 0,
                "attacks": 0,
                "stillness_gain": 1e9,
                "judge_low": -2,
            },
        }
    )


def write_reward(folder: Path, seed: int = 0) -> Path:
    """A reward artifact whose ladder network has random weights: it ranks nothing, but it scores."""
    torch.manual_seed(seed)
    sizes = NetworkParams(members=3, hidden=8, embedding=8, bins=2)
    statistics = clip_statistics(world(8).float() / 255.0)
    network = RewardNet(sizes, statistics.shape[1])
    network.coding.fit(statistics)
    params = StepParams.model_validate({"run": {"seed": seed, "device": "cpu"}})
    with publish(str(folder), step="reward", params=params, inputs={}) as workspace:
        TrainedReward(network, ClipFormat(FRAMES, SIDE, SIDE, 8.0)).save(workspace.dir, sizes)
        workspace.write_metrics({"srcc_world": 0.0})
    return folder


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `write_reward`'s artifact."""
    return write_reward(tmp_path_factory.mktemp("untrained") / "reward")
