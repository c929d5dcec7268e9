"""Temporal distortions: each frame is whole, their order, timing or position is damaged."""

from __future__ import annotations

import torch
from torch import Tensor

from components.reward.distortions.base import PX, Draws, distortion, scaled
from components.reward.distortions.saliency import background_fill, object_mask
from components.video.filters import displace


def take(frames: Tensor, index: Tensor) -> Tensor:
    """Frames (B, T, ...) picked in time by an index (B, T)."""
    shape = (*index.shape, *([1] * (frames.ndim - 2)))
    return frames.gather(1, index.reshape(shape).expand_as(frames))


def _clock(frames: Tensor) -> Tensor:
    return torch.arange(frames.shape[1], device=frames.device).expand(frames.shape[0], -1)


@distortion("temporal", (0.25, 0.45, 0.6, 0.8, 1.0), "fraction of the clip")
def freeze(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The picture stops moving for the last part of the clip (or its first); at level 5 it never moves."""
    last = frames.shape[1] - 1
    held = max(1, round(value * last))
    tail = _clock(frames).clamp(max=last - held)
    head = _clock(frames).clamp(min=held)
    return take(frames, torch.where(draws.signs(1) > 0, tail, head))


@distortion("temporal", (0.2, 0.35, 0.5, 0.65, 0.85), "probability of a repeated frame")
def stutter(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Frames are repeated at random instead of the next one."""
    fresh = draws.uniform(frames.shape[1]) >= value
    # At least one frame is repeated, whatever the draw.
    fresh.scatter_(1, draws.integers(1, max(2, frames.shape[1]), 1), False)
    fresh[:, 0] = True
    return take(frames, torch.where(fresh, _clock(frames), torch.zeros_like(_clock(frames))).cummax(1).values)


@distortion("temporal", (1.5, 2, 3, 4, 6), "frames that share one picture")
def low_frame_rate(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Sample and hold at a lower frame rate."""
    return take(frames, (torch.floor(_clock(frames) / value) * value).ceil().long())


@distortion("temporal", (0.8, 0.6, 0.45, 0.33, 0.2), "period, fraction of the clip")
def loop(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """A short piece of the clip is played again and again, with a jump at each start."""
    time = frames.shape[1]
    # Two frames are the shortest loop that moves; of a clip of two, one is left.
    period = max(min(2, time - 1), min(time - 1, round(value * time)))
    clock = _clock(frames)
    head = clock % period
    tail = time - 1 - (time - 1 - clock) % period
    return take(frames, torch.where(draws.signs(1) > 0, head, tail))


@distortion("temporal", (1.6, 2.4, 3.6, 5.5, 9), "window, frames")
def shuffle(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Frames change places inside a window that slides along the clip."""
    clock = _clock(frames)
    order = (clock + value * draws.uniform(frames.shape[1])).argsort(1)
    untouched = (order == clock).all(1, keepdim=True)
    swapped = clock.clone()
    swapped[:, :2] = swapped[:, :2].flip(1)
    return take(frames, torch.where(untouched, swapped, order))


@distortion("temporal", (0.7, 1.3, 2.0, 3.0, 4.5), "largest error of a time stamp, frames")
def judder(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Motion runs fast, slow and backwards: frames are shown at the wrong moment."""
    time = frames.shape[1]
    error = draws.uniform(time, low=0.5) * draws.signs(1) * (1 - 2 * (_clock(frames) % 2)) * value
    return take(frames, (_clock(frames) + error).round().clamp(0, time - 1).long())


@distortion("temporal", (0.6, 1.1, 1.8, 2.7, 4.0), f"standard deviation, {PX}")
def jitter(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The camera shakes: every frame is shifted by its own small step."""
    step = draws.normal(2, frames.shape[1], 1, 1) * scaled(frames, value)
    return displace(frames, step[:, 0], step[:, 1])


@distortion("temporal", (0.12, 0.25, 0.4, 0.6, 0.85), "share of the clip lost at a cut")
def jump(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Frames are missing in the middle: the motion waits, jumps and waits."""
    time = frames.shape[1]
    cut = draws.integers(1, max(2, time - 1), 1)
    lost = max(1, round(value * (time - 1)))
    before = (cut - 1 - lost // 2).clamp(min=0)
    after = (cut + lost - lost // 2).clamp(max=time - 1)
    clock = _clock(frames)
    return take(frames, torch.where(clock < cut, torch.minimum(clock, before), torch.maximum(clock, after)))


@distortion("temporal", (0.4, 0.6, 0.78, 0.9, 1.0), "opacity lost by the last frame")
def fade(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The salient object fades away (or in) over the clip."""
    time = frames.shape[1]
    course = (_clock(frames).to(frames.dtype) / max(time - 1, 1)).pow(0.7)
    course = torch.where(draws.signs(1) > 0, course, course.flip(1))[:, :, None, None, None]
    mask = object_mask(frames)
    return torch.lerp(frames, background_fill(frames, mask), mask * course * value)


@distortion("temporal", (0.1, 0.2, 0.32, 0.45, 0.6), "share of frames")
def blink(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The salient object is missing from some frames."""
    gone = (draws.uniform(frames.shape[1]) < value).to(frames.dtype)
    # At least one frame loses it, whatever the draw.
    gone.scatter_(1, draws.integers(0, frames.shape[1], 1), 1.0)
    mask = object_mask(frames)
    return torch.lerp(frames, background_fill(frames, mask), mask * gone[:, :, None, None, None])
