"""One iteration's clips: every candidate of several prompts in one sampler call, scored.

A candidate's seed is named by (run seed, iteration, prompt, index).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import torch
from torch import Tensor

from components.alignment.candidates.pairs import Candidate, motion_of
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
from components.reward.base import Rating, Reward
from components.runtime.compute.seeds import derive, torch_generator

T = TypeVar("T")
#: What to keep of a prompt's clips, uint8 (N, T, 3, H, W), at a frame rate.
Keep = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Group:
    """A prompt's candidates: latents (N, C, T, h, w) on the device, and the figures of each.

    Attributes:
        frames: what was kept of their frames, uint8 (N, T, 3, H, W) on the host; None without a `Keep`.
    """

    prompt: Prompt
    latents: Tensor
    candidates: list[Candidate]
    frames: Tensor | None = None

    def with_more(self, more: Group) -> Group:
        """Return this group with further candidates of its prompt, whose indices continue its own."""
        both = None
        if self.frames is not None and more.frames is not None:
            both = torch.cat([self.frames, more.frames])
        latents = torch.cat([self.latents, more.latents])
        return Group(self.prompt, latents, self.candidates + more.candidates, both)


def epoch_sample(
    items: Sequence[T], count: int, seed: int, iteration: int, name: str, key: Callable[[T], str]
) -> list[T]:
    """Return an iteration's `count` items by an epoch sampler: in seeded order, reshuffled each epoch.

    Of items with the same key only the last is returned, so that there may be fewer.

    Args:
        name: of the sampler, for its seed.
    """
    chosen: dict[str, T] = {}
    for position in range(iteration * count, (iteration + 1) * count):
        epoch, place = divmod(position, len(items))
        order = torch.randperm(len(items), generator=torch_generator(seed, name, epoch))
        item = items[int(order[place])]
        chosen[key(item)] = item
    return list(chosen.values())


def prompts_of_iteration(prompts: Sequence[Prompt], count: int, seed: int, iteration: int) -> list[Prompt]:
    """Return the prompts of an iteration, see `epoch_sample`; one that ends an epoch and begins the next is
    taken once."""
    return epoch_sample(prompts, count, seed, iteration, "alignment prompts", lambda prompt: prompt.id)


def candidate_seed(seed: int, iteration: int, prompt_id: str, index: int) -> int:
    """Return the sampling seed of a candidate; it depends on its name, not on the order of sampling."""
    return derive(seed, "rollout", iteration, prompt_id, index)


@torch.no_grad()
def roll_out(
    generator: Generator,
    reward: Reward,
    prompts: Sequence[Prompt],
    candidates: int,
    seed: int,
    iteration: int,
    keep: Keep | None = None,
    taken: Mapping[str, int] | None = None,
    overlap_scoring: bool = False,
) -> list[Group]:
    """Sample, decode and score `candidates` clips for each prompt with the network as it stands.

    Args:
        keep: what to keep of the frames; None keeps nothing.
        taken: number of candidates that a prompt, by id, has already; its indices continue from there.
        overlap_scoring: score each of the sampler's batches while the next one is sampled, for a reward on a
            device of its own. The result does not change: a reward gives a clip the same bits in any batch.
    """
    named = [
        (prompt, index + (taken or {}).get(prompt.id, 0)) for prompt in prompts for index in range(candidates)
    ]
    seeds = [candidate_seed(seed, iteration, prompt.id, index) for prompt, index in named]
    texts = [prompt.text for prompt, _ in named]
    if overlap_scoring:
        latents, frames, rating = _sample_and_score(generator, reward, texts, seeds)
    else:
        latents = generator.sample_latents(texts, seeds)
        frames = generator.decode(latents)
        rating = reward.rate(frames, generator.fps, texts)
    return grouped(named, seeds, latents, frames, generator.fps, rating, keep)


def grouped(
    named: Sequence[tuple[Prompt, int]],
    seeds: Sequence[int],
    latents: Tensor,
    frames: Tensor,
    fps: float,
    rating: Rating,
    keep: Keep | None = None,
) -> list[Group]:
    """Return N clips as one group per prompt.

    Args:
        named: each clip's prompt and candidate index; clips of a prompt follow each other.
        latents: (N, C, T, h, w); a clip's reward is NaN where they are not finite.
        frames: uint8 (N, T, 3, H, W), for the motion and for `keep`.
    """
    # Latents that are not finite decode to frames like any other: the reward would not notice.
    sound = latents.isfinite().flatten(1).all(dim=1).to(rating.score.device)
    rewards = rating.score.where(sound, math.nan).tolist()
    uncertainties, motions = rating.uncertainty.tolist(), motion_of(frames).tolist()
    aspects = {name: values.tolist() for name, values in rating.aspects.items()}
    groups = []
    for prompt, rows in groupby(range(len(named)), key=lambda row: named[row][0]):
        clips = list(rows)
        here = slice(clips[0], clips[-1] + 1)
        candidates = [
            Candidate(
                prompt.id, named[row][1], seeds[row], rewards[row], motions[row], uncertainties[row],
                {name: values[row] for name, values in aspects.items()},
            )
            for row in clips
        ]  # fmt: skip
        groups.append(Group(prompt, latents[here], candidates, keep(frames[here], fps) if keep else None))
    return groups


def _sample_and_score(
    generator: Generator, reward: Reward, texts: Sequence[str], seeds: Sequence[int]
) -> tuple[Tensor, Tensor, Rating]:
    """Return latents, frames and ratings; a thread scores a batch while the next one is sampled.

    An error of the thread is raised once that next batch is sampled.
    """
    generator.embeddings([*dict.fromkeys(texts), ""])  # all at once, as without a thread
    latents: list[Tensor] = []
    frames: list[Tensor] = []
    scoring: list[Future[Rating]] = []
    size = generator.settings.batch
    with ThreadPoolExecutor(1, "reward") as thread:
        for start in range(0, len(texts), size):
            here = slice(start, start + size)
            latents.append(generator.sample_latents(texts[here], seeds[here]))
            frames.append(generator.decode(latents[-1]))
            if scoring:
                scoring[-1].result()
            scoring.append(thread.submit(_rate, reward, frames[-1], generator.fps, texts[here]))
    ratings = [future.result() for future in scoring]
    rating = Rating(
        torch.cat([part.score for part in ratings]),
        torch.cat([part.uncertainty for part in ratings]),
        {name: torch.cat([part.aspects[name] for part in ratings]) for name in ratings[0].aspects},
    )
    return torch.cat(latents), torch.cat(frames), rating


@torch.no_grad()  # holds only in the thread that calls it
def _rate(reward: Reward, frames: Tensor, fps: float, texts: Sequence[str]) -> Rating:
    return reward.rate(frames, fps, texts)
