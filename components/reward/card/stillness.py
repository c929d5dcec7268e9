"""Whether less motion scores higher where nothing else differs: a policy could learn to stand still."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from components.reward.card.attacks import ScoreClips, picked
from components.reward.card.card import Figure, Slowed, Stillness, Wins
from components.reward.card.correlation import srcc
from components.reward.labels.ms_ssim import differs
from components.reward.ladders.sources import SourceClips
from components.runtime.compute.seeds import derive, torch_generator
from components.runtime.compute.signals import StopSignal
from components.video.filters import luma

if TYPE_CHECKING:
    from components.corpus.world.scene import Scene

#: How many times slower a clip moves in the probes.
SLOWER = (2, 8)
#: Share of a frame's sides that a pan over it shows.
WINDOW = 5 / 6


def stillness(
    score: ScoreClips,
    pools: dict[str, SourceClips],
    count: int,
    seed: int,
    score_per_level: float | None,
    stop: StopSignal,
) -> Stillness:
    """Whether less motion scores higher where nothing else differs.

    Two kinds of probe, each with the motion slowed 2 and 8 times: scenes of the miniature world rendered
    anew (`world_...`), and a camera that pans over one frame of a clip (`pan_<source>_...`).

    Args:
        count: of clips for each probe.
        score_per_level: mean fall of the score from one level of a ladder to the next.
    """
    motion: dict[str, Figure] = {}
    probes: dict[str, Slowed] = {}
    for source, clips in pools.items():
        stop.raise_if_requested()
        frames = clips.frames[picked(clips, count, seed, "motion", source)]
        scores = score(frames, None).double().numpy()
        motion[source] = srcc(scores, motion_amount(frames).double().numpy())
    for name, moving, slower in _slowed(pools, count, seed):
        fast = score(moving, None).double().numpy()
        for times, slowed in slower.items():
            stop.raise_if_requested()
            slow = score(slowed, None).double().numpy()
            apart = differs(moving.float() / 255.0, slowed.float() / 255.0).numpy().astype(bool)
            gain = None
            if apart.any() and score_per_level:
                gain = float((slow - fast)[apart].mean()) / score_per_level
            probes[f"{name}_{times}x_slower"] = Slowed(Wins.of(fast > slow, apart), gain)
    return Stillness(motion, probes)


def motion_amount(frames: Tensor) -> Tensor:
    """Mean absolute change of luma from frame to frame: uint8 (B, T, 3, H, W) -> (B,) in 0..1."""
    grey = luma(frames.float() / 255.0)
    return (grey[:, 1:] - grey[:, :-1]).abs().mean(dim=(1, 2, 3))


def _slowed(
    pools: dict[str, SourceClips], count: int, seed: int
) -> Iterator[tuple[str, Tensor, dict[int, Tensor]]]:
    """Names, uint8 (N, T, 3, H, W) clips, and the same clips slowed so many times."""
    for source, clips in pools.items():
        rows = picked(clips, count, seed, "stillness", source)
        frames = clips.frames[rows]
        named = [scene_of(clips.contents[row]) for row in rows] if source == "world" else []
        scenes = [scene for scene in named if scene is not None]
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
