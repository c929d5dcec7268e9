"""Ledgers to look at: made of hand-written groups, or of what a tiny base draws."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from components.alignment.candidates.pairs import Candidate, motion_of, pair_groups
from components.alignment.candidates.rollout import Group, candidate_seed
from components.alignment.ledger import LedgerOrigin, LedgerWriter, kept_latents
from components.alignment.ledger.schema import KeepLatents
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
from components.generator.params import SamplingParams
from components.reward.base import Rating
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.artifacts.publish import publish
from components.runtime.params import StepParams

PROMPTS = [Prompt(f"p{n}", f"a film of {n} things", "train") for n in range(3)]
SETTINGS = SamplingParams(num_frames=5, height=16, width=16, fps=8.0, steps=2, guidance=1.0, batch=4)


class Rules(StepParams):
    """As much of alignment's params as a ledger's reader looks at."""

    min_gap: float = Field(0.0, description="see alignment")
    motion_floor: float = Field(0.0, description="see alignment")
    noise_gap: float = Field(0.0, description="see alignment")


class Light:
    """The mean of the clip's pixels times a sign: 1 likes bright clips, -1 dark ones."""

    def __init__(self, sign: float) -> None:
        self.sign, self.calls = sign, 0

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        """frames uint8 (B, T, 3, H, W) -> (B,)."""
        self.calls += 1
        return self.sign * frames.double().mean(dim=(1, 2, 3, 4)).float()

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        """frames uint8 (B, T, 3, H, W) -> (B,) each."""
        red = frames[:, :, 0].double().mean(dim=(1, 2, 3)).float()
        return Rating(self.score(frames, fps, prompts), torch.zeros(len(frames)), {"red": red})


def group(prompt: Prompt, rewards: Sequence[float], latents: Tensor | None = None) -> Group:
    """A group of given rewards; latents count up unless they are given."""
    candidates = [
        Candidate(prompt.id, index, 70 + index, reward, 1.0 + index, 0.1 * index, {"codec": 2.0 * index})
        for index, reward in enumerate(rewards)
    ]
    if latents is None:
        latents = torch.arange(len(rewards) * 4.0).reshape(len(rewards), 1, 1, 2, 2) / 3
    return Group(prompt, latents, candidates)


def write(
    writer: LedgerWriter,
    iteration: int,
    groups: Sequence[Group],
    keep: KeepLatents = "pairs",
    policy: int = 0,
    half: bool = False,
) -> None:
    """One iteration's part, paired without thresholds."""
    decisions = pair_groups([g.candidates for g in groups], 0.0, 0.0)
    kept = kept_latents(groups, decisions, keep, half=half)
    origin = LedgerOrigin(policy, 5, 0, "digest of light")
    writer.write(iteration, groups, decisions, origin, kept, trained=True)


def make_base(folder: Path, pipeline: Path, name: str = "base") -> Artifact:
    """A generator's artifact around a tiny pipeline."""
    with publish(folder / name, step="generator", params=StepParams()) as workspace:
        shutil.copytree(pipeline, workspace.dir / "pipeline")
        (workspace.dir / "generator.json").write_text(SETTINGS.model_dump_json())
        (workspace.dir / "name.txt").write_text(name)
        workspace.write_metrics({})
    return open_artifact(folder / name)


def make_reward(folder: Path, name: str) -> Artifact:
    """A reward's artifact whose config says no more than its name; tests put `Light` in its place."""
    with publish(folder / name, step="reward", params=StepParams()) as workspace:
        (workspace.dir / "config.json").write_text(f'{{"name": "{name}"}}')
        workspace.write_metrics({})
    return open_artifact(folder / name)


def publish_ledger(
    out: Path, writer: LedgerWriter, iterations: int, base: Artifact | None = None, step: str = "alignment"
) -> Path:
    """What the alignment step would publish of it."""
    inputs = {} if base is None else {"generator": base}
    with publish(out, step=step, params=Rules(), inputs=inputs) as workspace:
        writer.publish(workspace.dir, iterations)
        workspace.write_metrics({})
    return out


def draw(generator: Generator, iteration: int, count: int = 3, seed: int = 0) -> list[Group]:
    """What a roll-out with the network as it stands would draw, judged by `Light`."""
    groups = []
    for prompt in PROMPTS:
        seeds = [candidate_seed(seed, iteration, prompt.id, index) for index in range(count)]
        frames, latents = generator.sample([prompt.text] * count, seeds)
        scores, motions = Light(1.0).score(frames, 8.0).tolist(), motion_of(frames).tolist()
        candidates = [Candidate(prompt.id, i, seeds[i], scores[i], motions[i]) for i in range(count)]
        groups.append(Group(prompt, latents, candidates))
    return groups
