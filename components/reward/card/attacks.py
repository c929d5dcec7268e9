"""Tricks that raise a weak reward: attacked clips against their honest originals, and stillness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.reward.card.card import Slowed, Stillness, Wins
from components.reward.card.correlation import srcc
from components.reward.distortions import ATTACKS, GENERATED_ATTACKS, GENERATIVE, REGISTRY
from components.reward.features.handcrafted import clip_statistics
from components.reward.labels import differs
from components.reward.ladders.sources import Clips
from components.reward.scoring.trained import Geometry
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.seeds import derive, torch_generator
from components.runtime.compute.signals import StopSignal
from components.runtime.progress import Progress
from components.video.filters import luma

if TYPE_CHECKING:
    from components.corpus.world.scene import Scene
    from components.generator.generator import Generator

ScoreClips = Callable[[Tensor, Tensor | None], Tensor]
"""uint8 (B, T, 3, H, W) and their statistics where known -> (B,) scores, higher is better."""

SLOWER = (2, 8)
"""How many times slower a clip moves in the probes of stillness."""
WINDOW = 5 / 6
"""Share of a frame's sides that a pan over it shows."""
PART = 32
"""Clips handled at once."""


def picked(clips: Clips, count: int, seed: int, *names: str | int) -> list[int]:
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
    pools: dict[str, Clips],
    count: int,
    seed: int,
    crew: ProcessPool,
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
    for key, (frames, statistics, apart) in zip(order, crew.map(_attacked, work), strict=True):
        found = score(torch.from_numpy(frames), torch.from_numpy(statistics))
        scores.setdefault(key, []).append(found.double().numpy())
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
    geometry: Geometry,
    seed: int,
    stop: StopSignal,
) -> dict[str, Wins]:
    """Wins of the generator's own samples over the attacks that it draws itself, on these prompts."""
    seeds = [derive(seed, "generator attacks", number) for number in range(len(prompts))]
    honest = _fitted(GENERATIVE["few_steps"].build(generator, prompts, 0, seeds), geometry)
    above = score(honest, None)
    wins = {}
    for attack, (name, level) in GENERATED_ATTACKS.items():
        stop.raise_if_requested()
        clips = _fitted(GENERATIVE[name].build(generator, prompts, level, seeds), geometry)
        apart = torch.cat(
            [
                differs(a.float() / 255.0, b.float() / 255.0)
                for a, b in zip(honest.split(PART), clips.split(PART), strict=True)
            ]
        )
        wins[attack] = Wins.of((above > score(clips, None)).numpy(), apart.numpy().astype(bool), prompts)
    return wins


def _fitted(clips: Tensor, geometry: Geometry) -> Tensor:
    """A generator's uint8 clips at the length and size of the reward's."""
    clips = clips[:, : geometry.frames]
    goal = (geometry.height, geometry.width)
    if clips.shape[-2:] == goal:
        return clips
    small = F.interpolate(
        clips.flatten(0, 1).float(), size=goal, mode="bilinear", antialias=True, align_corners=False
    )
    return small.round().clamp(0, 255).to(torch.uint8).unflatten(0, clips.shape[:2])


def stillness(
    score: ScoreClips, pools: dict[str, Clips], count: int, seed: int, level: float | None, stop: StopSignal
) -> Stillness:
    """Whether less motion scores higher where nothing else differs.

    Two kinds of probe, each with the motion slowed 2 and 8 times: scenes of the miniature world rendered
    anew (`world_...`), and a camera that pans over one frame of a clip (`pan_<source>_...`).

    Args:
        count: of clips for each probe.
        level: what one level of a ladder costs.
    """
    found = Stillness()
    for source, clips in pools.items():
        stop.raise_if_requested()
        frames = clips.frames[picked(clips, count, seed, "motion", source)]
        scores = score(frames, None).double().numpy()
        found.motion[source] = srcc(scores, motion_amount(frames).double().numpy())
    for name, moving, slower in _slowed(pools, count, seed):
        fast = score(moving, None).double().numpy()
        for times, slowed in slower.items():
            stop.raise_if_requested()
            slow = score(slowed, None).double().numpy()
            apart = differs(moving.float() / 255.0, slowed.float() / 255.0).numpy().astype(bool)
            gain = float((slow - fast)[apart].mean()) / level if apart.any() and level else None
            found.slowed[f"{name}_{times}x_slower"] = Slowed(Wins.of(fast > slow, apart), gain)
    return found


def motion_amount(frames: Tensor) -> Tensor:
    """Mean absolute change of luma from frame to frame: uint8 (B, T, 3, H, W) -> (B,) in 0..1."""
    grey = luma(frames.float() / 255.0)
    return (grey[:, 1:] - grey[:, :-1]).abs().mean(dim=(1, 2, 3))


def _slowed(
    pools: dict[str, Clips], count: int, seed: int
) -> Iterator[tuple[str, Tensor, dict[int, Tensor]]]:
    """Names, uint8 (N, T, 3, H, W) clips, and the same clips slowed so many times."""
    for source, clips in pools.items():
        rows = picked(clips, count, seed, "stillness", source)
        frames = clips.frames[rows]
        found = [scene_of(clips.contents[row]) for row in rows] if source == "world" else []
        scenes = [scene for scene in found if scene is not None]
        if scenes:
            drawn = {times: rendered(scenes, times, frames.shape, seed) for times in (1, *SLOWER)}
            yield "world", drawn.pop(1), drawn
        yield (
            f"pan_{source}",
            panned(frames, 1.0, seed),
            {times: panned(frames, 1 / times, seed) for times in SLOWER},
        )


def scene_of(content: str) -> Scene | None:
    """The scene that a content of the miniature world, world/<scene>/<number>, names; None if none."""
    from components.corpus.world.scene import Scene

    parts = content.split("/")
    values = parts[1].split("-") if len(parts) > 1 else []
    if len(values) != 5:
        return None
    colour, shape, direction, speed, background = values
    try:
        return Scene(shape, colour, direction, speed, background)
    except ValueError:
        return None


def rendered(scenes: Sequence[Scene], times: int, shape: Sequence[int], seed: int) -> Tensor:
    """The scenes drawn anew, `times` slower: the first frames of a film of so many times the frame rate.

    Args:
        shape: (N, T, 3, H, W) of the clips wanted; they are as wide as high.
        seed: scenes of equal place are the same but for their pace, whatever that is.
    """
    from components.corpus.world.render import render

    frames, side = shape[1], min(shape[-2:])
    clips = []
    for number, scene in enumerate(scenes):
        film = render(scene, derive(seed, "stillness", number), (frames - 1) * times + 1, side)
        clips.append(film[:frames])
    return torch.stack(clips)


def panned(frames: Tensor, speed: float, seed: int) -> Tensor:
    """A camera that pans over the middle frame of each clip, across the whole margin at speed 1.

    One bicubic reading at every speed, at fractions of a pixel, so that speed is all that differs.

    Args:
        frames: uint8 (N, T, 3, H, W).
        speed: 0 to 1, of the way over the clip.
        seed: of the directions; clips of equal place in the batch pan in the same direction at every speed.

    Returns:
        uint8 (N, T, 3, H, W).
    """
    count, time = frames.shape[:2]
    still = frames[:, time // 2].float() / 255.0
    turn = torch_generator(seed, "pan")
    angle = torch.rand(count, generator=turn) * 2 * torch.pi
    # Starts anywhere on the way, so that the slow pan does not always show the same end of it.
    begin = torch.rand(count, generator=turn) * (1.0 - speed)
    way = begin[:, None] + speed * torch.linspace(0.0, 1.0, time)  # (N, T)
    margin = 1.0 - WINDOW
    offset = (2.0 * way - 1.0)[..., None] * torch.stack((angle.cos(), angle.sin()), -1)[:, None] * margin
    theta = torch.zeros(count, time, 2, 3)
    theta[..., 0, 0] = theta[..., 1, 1] = WINDOW
    theta[..., 2] = offset
    source = still[:, None].expand(-1, time, -1, -1, -1).flatten(0, 1)
    grid = F.affine_grid(theta.flatten(0, 1), list(source.shape), align_corners=False)
    read = F.grid_sample(source, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return (read.clamp(0, 1) * 255.0).round().to(torch.uint8).unflatten(0, (count, time))
