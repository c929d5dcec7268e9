"""Tricks that raise a weak reward: attacked clips against their honest originals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from components.reward.card.card import Wins
from components.reward.distortions import ATTACKS, GENERATED_ATTACKS, GENERATIVE, REGISTRY
from components.reward.features.handcrafted import clip_statistics
from components.reward.labels.ms_ssim import differs
from components.reward.ladders.sources import SourceClips
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.seeds import derive, torch_generator
from components.runtime.compute.signals import StopSignal
from components.runtime.progress import Progress
from components.video.clip import ClipFormat

if TYPE_CHECKING:
    from components.generator.generator import Generator

#: uint8 (B, T, 3, H, W) and their statistics where known -> (B,) scores, higher is better.
ScoreClips = Callable[[Tensor, Tensor | None], Tensor]

#: Clips handled at once.
PART = 32


def picked(clips: SourceClips, count: int, seed: int, *names: str | int) -> list[int]:
    """Rows of `count` clips, or of all there are, in random order."""
    return torch.randperm(len(clips), generator=torch_generator(seed, *names)).tolist()[:count]


@dataclass(frozen=True)
class _Attack:
    """Clips to attack, as an array that can be sent to another process."""

    name: str | None
    level: int
    frames: np.ndarray
    seeds: list[int]


def _attacked(task: _Attack) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The attacked clips, their statistics, and whether each can be told from its original; with no name
    the originals themselves."""
    honest = torch.from_numpy(task.frames)
    floats = honest.float() / 255.0
    clips = honest
    if task.name is not None:
        damaged = REGISTRY[task.name](floats, task.level, task.seeds)
        clips = (damaged * 255.0).round().to(torch.uint8)
    statistics = clip_statistics(clips.float() / 255.0)
    return clips.numpy(), statistics.numpy(), differs(floats, clips.float() / 255.0).numpy()


def attack_wins(
    score: ScoreClips,
    pools: dict[str, SourceClips],
    count: int,
    seed: int,
    workers: ProcessPool,
    progress: Progress | None = None,
) -> dict[str, dict[str, Wins]]:
    """Wins of the honest original over every attacked copy, by source and attack.

    Args:
        score: the reward.
        pools: clips by source.
        count: of clips that each attack is tried on.
    """
    order: list[tuple[str, str]] = []
    work: list[_Attack] = []
    contents: dict[str, list[str]] = {}
    for source, clips in pools.items():
        rows = picked(clips, count, seed, "attacks", source)
        contents[source] = [clips.contents[row].split("#")[0] for row in rows]
        frames = clips.frames[rows].numpy()
        for attack, (name, level) in {"": ("", 0), **ATTACKS}.items():
            for start in range(0, len(rows), PART):
                part = rows[start : start + PART]
                seeds = [derive(seed, source, attack, clips.contents[row], row) for row in part]
                work.append(_Attack(name or None, level, frames[start : start + PART], seeds))
                order.append((source, attack))
    scores: dict[tuple[str, str], list[np.ndarray]] = {}
    seen: dict[tuple[str, str], list[np.ndarray]] = {}
    for key, (frames, statistics, apart) in zip(order, workers.map(_attacked, work), strict=True):
        rated = score(torch.from_numpy(frames), torch.from_numpy(statistics))
        scores.setdefault(key, []).append(rated.double().numpy())
        seen.setdefault(key, []).append(apart)
        if progress is not None:
            progress.update(len(apart))
    wins: dict[str, dict[str, Wins]] = {source: {} for source in pools}
    for (source, attack), parts in scores.items():
        if attack:
            honest = np.concatenate(scores[source, ""])
            seen_here = np.concatenate(seen[source, attack]).astype(bool)
            above = honest > np.concatenate(parts)
            wins[source][attack] = Wins.of(above, seen_here, contents[source])
    return wins


def generator_wins(
    score: ScoreClips,
    generator: Generator,
    prompts: Sequence[str],
    geometry: ClipFormat,
    seed: int,
    stop: StopSignal,
) -> dict[str, Wins]:
    """Wins of the generator's own samples over the attacks that it draws itself, on these prompts."""
    seeds = [derive(seed, "generator attacks", number) for number in range(len(prompts))]
    honest = geometry.fit(GENERATIVE["few_steps"].build(generator, prompts, 0, seeds))
    above = score(honest, None)
    wins = {}
    for attack, (name, level) in GENERATED_ATTACKS.items():
        stop.raise_if_requested()
        clips = geometry.fit(GENERATIVE[name].build(generator, prompts, level, seeds))
        apart = torch.cat(
            [
                differs(a.float() / 255.0, b.float() / 255.0)
                for a, b in zip(honest.split(PART), clips.split(PART), strict=True)
            ]
        )
        wins[attack] = Wins.of((above > score(clips, None)).numpy(), apart.numpy().astype(bool), prompts)
    return wins
