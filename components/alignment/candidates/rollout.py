"""One iteration's clips: every candidate of several prompts in one sampler call, scored.

Each candidate has a seed of its own name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from components.alignment.candidates.pairs import Candidate, motion_of
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
from components.reward.base import Rating, Reward
from components.runtime.compute.seeds import derive, torch_generator

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """A prompt's candidates: latents (N, C, T, h, w) on the device, and what is known of each.

    ``frames`` are their pictures, uint8 (N, T, 3, H, W) on the host, where somebody asked to keep them.
    """

    prompt: Prompt
    latents: Tensor
    candidates: list[Candidate]
    frames: Tensor | None = None

    def with_more(self, more: Group) -> Group:
        """Return this group with further candidates of its prompt, whose indices go on from its own."""
        both = None
        if self.frames is not None and more.frames is not None:
            both = torch.cat([self.frames, more.frames])
        latents = torch.cat([self.latents, more.latents])
        return Group(self.prompt, latents, self.candidates + more.candidates, both)


def dealt(
    items: Sequence[T], count: int, seed: int, iteration: int, name: str, of: Callable[[T], str]
) -> list[T]:
    """Return an iteration's ``count`` of the items, or fewer where two have the same name.

    They are dealt in seeded order, shuffled anew each time all have been dealt out. Items whose ``of`` is the
    same come up once in an iteration, as the later of them.

    Args:
        name: of the deal, for its seed.
        of: an item's name.
    """
    chosen: dict[str, T] = {}
    for position in range(iteration * count, (iteration + 1) * count):
        epoch, place = divmod(position, len(items))
        order = torch.randperm(len(items), generator=torch_generator(seed, name, epoch))
        item = items[int(order[place])]
        chosen[of(item)] = item
    return list(chosen.values())


def prompts_of_iteration(prompts: Sequence[Prompt], count: int, seed: int, iteration: int) -> list[Prompt]:
    """Return the prompts of an iteration, see `dealt`: one that comes up twice, at the seam of two deals, is
    taken once."""
    return dealt(prompts, count, seed, iteration, "alignment prompts", lambda prompt: prompt.id)


def candidate_seed(seed: int, iteration: int, prompt_id: str, index: int) -> int:
    """Return the sampling seed of a candidate: named by what it is, not by when it is drawn."""
    return derive(seed, "rollout", iteration, prompt_id, index)


def _sample_and_score(
    generator: Generator, reward: Reward, texts: Sequence[str], seeds: Sequence[int]
) -> tuple[Tensor, Tensor, Rating]:
    """Latents, frames and ratings of clips; a thread scores a batch while the next one is sampled.

    What the thread raises is raised here, once that next batch is there.
    """
    generator.embeddings([*dict.fromkeys(texts), ""])  # all at once, as without a thread
    latents: list[Tensor] = []
    frames: list[Tensor] = []
    ratings: list[Rating] = []
    size = generator.settings.batch
    with ThreadPoolExecutor(1, "reward") as thread:
        scoring: Future[Rating] | None = None
        for start in range(0, len(texts), size):
            here = slice(start, start + size)
            latents.append(generator.sample_latents(texts[here], seeds[here]))
            frames.append(generator.decode(latents[-1]))
            if scoring is not None:
                ratings.append(scoring.result())
            scoring = thread.submit(_rate, reward, frames[-1], generator.fps, texts[here])
        if scoring is not None:
            ratings.append(scoring.result())
    rating = Rating(
        torch.cat([part.score for part in ratings]),
        torch.cat([part.uncertainty for part in ratings]),
        {name: torch.cat([part.aspects[name] for part in ratings]) for name in ratings[0].aspects},
    )
    return torch.cat(latents), torch.cat(frames), rating


@torch.no_grad()  # which holds for the thread that asks for it only
def _rate(reward: Reward, frames: Tensor, fps: float, texts: Sequence[str]) -> Rating:
    return reward.rate(frames, fps, texts)


@torch.no_grad()
def roll_out(
    generator: Generator,
    reward: Reward,
    prompts: Sequence[Prompt],
    candidates: int,
    seed: int,
    iteration: int,
    keep: Callable[[Tensor, float], Tensor] | None = None,
    taken: Mapping[str, int] | None = None,
    meanwhile: bool = False,
) -> list[Group]:
    """Sample, decode and score ``candidates`` clips for each prompt with the network as it stands.

    Args:
        keep: what to keep of a prompt's clips, given as uint8 (N, T, 3, H, W) with their frame rate; without
            it nothing is kept.
        taken: how many candidates a prompt, by id, has already; the indices go on from there.
        meanwhile: score each of the sampler's batches while the next one is sampled, which pays where the
            reward lies on a device of its own. A reward gives a clip the same bits in any batch, and nothing
            in it is random, so that the result does not change.
    """
    first = {prompt.id: (taken or {}).get(prompt.id, 0) for prompt in prompts}
    seeds = [
        candidate_seed(seed, iteration, prompt.id, first[prompt.id] + index)
        for prompt in prompts
        for index in range(candidates)
    ]
    texts = [prompt.text for prompt in prompts for _ in range(candidates)]
    if meanwhile:
        latents, frames, rating = _sample_and_score(generator, reward, texts, seeds)
    else:
        latents = generator.sample_latents(texts, seeds)
        frames = generator.decode(latents)
        rating = reward.rate(frames, generator.fps, texts)
    # Latents that are not finite decode to frames like any other: no reward would tell.
    sound = latents.isfinite().flatten(1).all(dim=1).to(rating.score.device)
    rewards = rating.score.where(sound, math.nan).tolist()
    spreads = rating.uncertainty.tolist()
    aspects = {name: values.tolist() for name, values in rating.aspects.items()}
    motions = motion_of(frames).tolist()
    groups = []
    for number, prompt in enumerate(prompts):
        here = range(number * candidates, (number + 1) * candidates)
        group = [
            Candidate(
                prompt.id, first[prompt.id] + index, seeds[row], rewards[row], motions[row], spreads[row],
                {name: values[row] for name, values in aspects.items()},
            )
            for index, row in enumerate(here)
        ]  # fmt: skip
        kept = keep(frames[here.start : here.stop], generator.fps) if keep is not None else None
        groups.append(Group(prompt, latents[here.start : here.stop], group, kept))
    return groups
