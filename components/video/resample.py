"""Changing a clip's size, rate and extent. Every function keeps the dtype it was given."""

from __future__ import annotations

import math

import torch

from components.video import filters
from components.video.clip import Clip


def resize(clip: Clip, size: tuple[int, int]) -> Clip:
    """Bicubic with antialiasing to (height, width) in pixels; overshoot is clamped to the range."""
    if min(size) < 1:
        raise ValueError(f"size must be at least 1 x 1, got {size}")
    if size == (clip.height, clip.width):
        return clip
    resized = clip.with_frames(filters.resize(clip.as_float().frames, *size, "bicubic").clamp(0.0, 1.0))
    return resized.as_uint8() if clip.frames.dtype == torch.uint8 else resized


def resample_fps(clip: Clip, fps: float) -> Clip:
    """Another frame rate by nearest time stamp: nothing is blended, so a pristine frame stays pristine.

    The result has round(seconds x fps) frames, at least one; frame k shows the source frame nearest to k /
    fps.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be finite and above 0, got {fps}")
    count = max(1, math.floor(clip.seconds * fps + 0.5))
    # Halves go up: torch.round would send them to the even neighbour and make the steps uneven.
    index = torch.floor(torch.arange(count, dtype=torch.float64) * clip.fps / fps + 0.5).long()
    return Clip(clip.frames[index.clamp(max=clip.num_frames - 1)], fps)


def crop(clip: Clip, top: int, left: int, height: int, width: int) -> Clip:
    """The rectangle from (top, left), in pixels; it must lie inside the frame."""
    inside = top >= 0 and left >= 0 and height >= 1 and width >= 1
    if not inside or top + height > clip.height or left + width > clip.width:
        raise ValueError(
            f"crop {width} x {height} at ({left}, {top}) is not inside {clip.width} x {clip.height}"
        )
    return clip.with_frames(clip.frames[:, :, top : top + height, left : left + width].contiguous())


def window(clip: Clip, start: int, frames: int) -> Clip:
    """`frames` frames from frame `start` on; they must all exist."""
    if start < 0 or frames < 1 or start + frames > clip.num_frames:
        raise ValueError(f"window of {frames} frames from {start} is not inside {clip.num_frames} frames")
    return clip.with_frames(clip.frames[start : start + frames].contiguous())
