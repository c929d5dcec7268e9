"""Stand-ins for the steps before: real artifacts on disk, a generator that draws the miniature world
itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from components.corpus.dataset import write_corpus
from components.corpus.prompts import Prompt
from components.corpus.world.render import render
from components.corpus.world.scene import all_scenes, parse_caption
from components.runtime.artifacts.artifact import Artifact
from components.runtime.artifacts.publish import publish
from components.runtime.params import StepParams

INPUTS = ("corpus", "generator", "reward", "alignment")


class WorldSampler:
    """Draws prompts of the miniature world with damage that depends on the seed; other prompts become
    noise.
    """

    calls = 0

    def __init__(self, damage: float, wrong: float = 0.0) -> None:
        self.damage, self.wrong = damage, wrong

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        type(self).calls += 1
        clips = torch.stack([self._one(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)])
        return clips, torch.zeros(len(clips), 1)

    def _one(self, prompt: str, seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        scene = parse_caption(prompt)
        if scene is None:
            return torch.from_numpy(rng.integers(0, 256, (9, 3, 48, 48), dtype=np.uint8))
        if rng.random() < self.wrong:
            scene = all_scenes()[int(rng.integers(576))]
        x = render(scene, seed % 1000).numpy() / 255.0
        strength = self.damage * (0.5 + rng.random())
        x = ndimage.gaussian_filter(x, (0, 0, 1.5 * strength, 1.5 * strength))
        x = x * (
            1 + 0.1 * strength * rng.standard_normal((9, 1, 1, 1))
        ) + 0.03 * strength * rng.standard_normal(x.shape)
        return torch.from_numpy(np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8))


class SteadyReward:
    """Likes clips that change little from frame to frame."""

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        x = frames.float() / 255.0
        return -(x[:, 1:] - x[:, :-1]).abs().mean(dim=(1, 2, 3, 4)) * 20


def make(folder: Path, step: str, files: dict[str, str | bytes], seed: int = 0) -> Path:
    """Publish a small artifact of a step."""
    params = StepParams.model_validate({"run": {"seed": seed, "device": "cpu"}})
    with publish(str(folder), step=step, params=params, inputs={}) as workspace:
        for name, content in files.items():
            path = workspace.dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if "metrics.json" not in files:
            workspace.write_metrics({"figure": 1.0})
    return folder


def make_inputs(root: Path, prompts: Sequence[Prompt]) -> dict[str, Path]:
    """The four artifacts that the evaluation reads, with only what it reads in them."""
    header = {"fps": 8.0, "frames": 9, "height": 48, "width": 48}
    params = StepParams.model_validate({"run": {"device": "cpu"}})
    with publish(str(root / "corpus"), step="corpus", params=params, inputs={}) as workspace:
        write_corpus(workspace.dir, header, [], prompts)
        workspace.write_metrics({"prompts": float(len(prompts))})
    rows = ["iteration,loss,rewards/accuracies,winner_error,loser_error,reward_mean,gap_mean,note"]
    for i in range(1, 25):
        errors = f"{0.1 - 0.0002 * i:.5f},{0.1 + 0.0005 * i:.5f}"
        rows.append(f"{i},{0.69 - 0.01 * i:.4f},{0.5 + 0.015 * i:.4f},{errors},{0.02 * i:.3f},0.4,x")
    return {
        "corpus": root / "corpus",
        "generator": make(
            root / "generator",
            "generator",
            {"generator.json": json.dumps({"fps": 8.0, "steps": 8, "guidance": 2.0})},
        ),
        "reward": make(
            root / "reward",
            "reward",
            {
                "model.safetensors": b"weights",
                "config.json": "{}",
                "metrics.json": '{"srcc_world": 0.88, "rmse_all": 0.71}',
            },
        ),
        "alignment": make(
            root / "alignment",
            "alignment",
            {"lora/pytorch_lora_weights.safetensors": b"lora", "plots/training.csv": "\n".join(rows) + "\n"},
        ),
    }


def world_prompts(number: int) -> list[Prompt]:
    scenes = all_scenes()[5 :: 576 // number][:number]
    return [Prompt(f"p{index:03d}", scene.caption, "heldout") for index, scene in enumerate(scenes)]


@dataclass
class StandIns:
    """What a test of the step uses: sampler calls made so far, and a maker of inputs."""

    sampler: type[WorldSampler]
    inputs: Callable[[Sequence[Prompt]], dict[str, Path]]
    world_prompts: Callable[[int], list[Prompt]]


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with every model of the catalogue, tiny and random."""
    from tests.evaluation.tiny_weights import make_all

    return make_all(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIns:
    """Make the step draw and score with the stand-ins above; the aligned one is the less damaged one."""
    return _installed(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished evaluation of 12 of 14 prompts, one seed each, for tests that only look at it."""
    from components.evaluation import step
    from components.evaluation.params import EvaluationParams

    root = tmp_path_factory.mktemp("finished")
    sizes = {"prompts": 12, "seeds": 1, "flow_pairs": 2, "resamples": 1000, "report_pairs": 2}
    chosen = {**sizes, "run": {"device": "cpu"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONLINEVPO_TRACKING", "off")
        made = _installed(patch, root)
        step.run(EvaluationParams.model_validate(chosen), **made.inputs(world_prompts(14)), out=root / "out")
    return root / "out"


def _installed(patch: pytest.MonkeyPatch, root: Path) -> StandIns:
    from components.evaluation import samples, step

    def sampler(generator: Artifact, device: torch.device, lora: Path | None) -> WorldSampler:
        return WorldSampler(1.3 if lora is None else 0.5)

    patch.setattr(WorldSampler, "calls", 0)
    patch.setattr(samples, "open_sampler", sampler)
    patch.setattr(step, "open_reward", lambda reward, device: SteadyReward())
    return StandIns(WorldSampler, lambda prompts: make_inputs(root / "inputs", prompts), world_prompts)
