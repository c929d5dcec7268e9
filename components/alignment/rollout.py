"""One iteration's clips: every candidate of several prompts in one sampler call, scored.

Each candidate has a seed of its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from components.alignment.pairs import Candidate, motion_of
from components.corpus import Prompt
from components.generator import Generator
from components.reward.interface import Reward
from components.runtime.seeds import derive, torch_generator


@dataclass(frozen=True)
class Group:
    """A prompt's candidates: latents (N, C, T, h, w) on the device, and what is known of each.

    ``frames`` are their pictures, uint8 (N, T, 3, H, W) on the host, where somebody asked to keep them.
    """

    prompt: Prompt
    latents: Tensor
    candidates: list[Candidate]
    frames: Tensor | None = None


def prompts_of_iteration(prompts: Sequence[Prompt], count: int, seed: int, iteration: int) -> list[Prompt]:
    """Return the prompts of an iteration.

    The list is dealt in seeded order, shuffled anew each time it has been dealt out. A prompt that comes up
    twice, at the seam of two deals, is taken once.
    """
    chosen: dict[str, Prompt] = {}
    for position in range(iteration * count, (iteration + 1) * count):
        epoch, place = divmod(position, len(prompts))
        order = torch.randperm(len(prompts), generator=torch_generator(seed, "alignment prompts", epoch))
        prompt = prompts[int(order[place])]
        chosen[prompt.id] = prompt
    return list(chosen.values())


def candidate_seed(seed: int, iteration: int, prompt_id: str, index: int) -> int:
    """Return the sampling seed of a candidate: named by what it is, not by when it is drawn."""
    return derive(seed, "rollout", iteration, prompt_id, index)


@torch.no_grad()
def roll_out(
    generator: Generator,
    reward: Reward,
    prompts: Sequence[Prompt],
    candidates: int,
    seed: int,
    iteration: int,
    keep: Callable[[Tensor, float], Tensor] | None = None,
) -> list[Group]:
    """Sample, decode and score ``candidates`` clips for each prompt with the network as it stands.

    Args:
        keep: what to keep of a prompt's clips, given as uint8 (N, T, 3, H, W) with their frame rate; without
            it nothing is kept.
    """
    seeds = [
        candidate_seed(seed, iteration, prompt.id, index) for prompt in prompts for index in range(candidates)
    ]
    texts = [prompt.text for prompt in prompts for _ in range(candidates)]
    latents = generator.sample_latents(texts, seeds)
    frames = generator.decode(latents)
    rating = reward.rate(frames, generator.fps, texts)
    rewards, spreads = rating.score.tolist(), rating.spread.tolist()
    aspects = {name: values.tolist() for name, values in rating.aspects.items()}
    motions = motion_of(frames).tolist()
    groups = []
    for number, prompt in enumerate(prompts):
        here = range(number * candidates, (number + 1) * candidates)
        group = [
            Candidate(
                prompt.id, index, seeds[row], rewards[row], motions[row], spreads[row],
                {name: values[row] for name, values in aspects.items()},
            )
            for index, row in enumerate(here)
        ]  # fmt: skip
        kept = keep(frames[here.start : here.stop], generator.fps) if keep is not None else None
        groups.append(Group(prompt, latents[here.start : here.stop], group, kept))
    return groups
