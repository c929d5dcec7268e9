"""The one type every video passes through, and the format of clips that a model takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from components.video.filters import resize, to_float, to_uint8


@dataclass(frozen=True)
class Clip:
    """A short RGB video held in memory.

    Attributes:
        frames: (T, 3, H, W), uint8 in 0..255 or float32 in 0..1, T >= 1.
        fps: frames per second, finite and above 0.

    Raises:
        ValueError: when the tensor is not such a stack (a caller's mistake, not bad user input).
    """

    frames: Tensor
    fps: float

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3:
            raise ValueError(f"frames must be (T, 3, H, W), got {tuple(self.frames.shape)}")
        if min(self.frames.shape) < 1:
            raise ValueError(f"frames must not be empty, got {tuple(self.frames.shape)}")
        if self.frames.dtype not in (torch.uint8, torch.float32):
            raise ValueError(f"frames must be uint8 or float32, got {self.frames.dtype}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be finite and above 0, got {self.fps}")

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.frames.shape[0])

    @property
    def height(self) -> int:
        """H in pixels."""
        return int(self.frames.shape[2])

    @property
    def width(self) -> int:
        """W in pixels."""
        return int(self.frames.shape[3])

    @property
    def seconds(self) -> float:
        """How long the clip is shown: every frame for 1 / fps."""
        return self.num_frames / self.fps

    def with_frames(self, frames: Tensor) -> Clip:
        """The same rate, other frames."""
        return replace(self, frames=frames)

    def as_float(self) -> Clip:
        """float32 in 0..1; itself if it is so already."""
        return self if self.frames.dtype == torch.float32 else self.with_frames(to_float(self.frames))

    def as_uint8(self) -> Clip:
        """uint8 in 0..255, clamped and rounded to nearest (truncation would darken by half a level)."""
        return self if self.frames.dtype == torch.uint8 else self.with_frames(to_uint8(self.frames))


@dataclass(frozen=True)
class ClipFormat:
    """The clips that a model makes or takes: frames, size in pixels, frames per second."""

    frames: int
    height: int
    width: int
    fps: float

    def frame_numbers(self, count: int, fps: float) -> Tensor:
        """The frames to take of a clip, from its first to its last, by nearest time stamp.

        A clip of a lower rate is taken as it is: no frame is made up. At least two numbers come back.

        Args:
            count: frames of the clip.
            fps: its rate, frames per second.
        """
        stride = max(fps / self.fps, 1.0)
        taken = max(2, int((count - 1) / stride + 1e-6) + 1)
        return (torch.arange(taken) * stride).round().long().clamp(max=count - 1)

    def fit(self, frames: Tensor, fps: float | None = None) -> Tensor:
        """uint8 clips (..., T, 3, H, W) at this size and, from their start, at most this many frames.

        Args:
            frames: the clips.
            fps: their rate, from which frames are picked by time; None keeps every frame.
        """
        if fps is not None:
            frames = frames[..., self.frame_numbers(frames.shape[-4], fps)[: self.frames], :, :, :]
        frames = frames[..., : self.frames, :, :, :]
        if frames.shape[-2:] == (self.height, self.width) or not len(frames):
            return frames
        # One by one: a clip in floats at its own size can be half a gigabyte.
        clips = frames.reshape(-1, *frames.shape[-4:])
        small = [resize(clip.float(), self.height, self.width, "bilinear") for clip in clips]
        fitted = torch.stack([clip.round().clamp(0, 255).to(torch.uint8) for clip in small])
        return fitted.reshape(*frames.shape[:-2], self.height, self.width)
