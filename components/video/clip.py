"""The one type every video passes through: a stack of RGB frames and the rate they are shown at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


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
        if self.frames.dtype == torch.float32:
            return self
        return self.with_frames(self.frames.to(torch.float32) / 255.0)

    def as_uint8(self) -> Clip:
        """uint8 in 0..255, clamped and rounded to nearest (truncation would darken by half a level)."""
        if self.frames.dtype == torch.uint8:
            return self
        return self.with_frames((self.frames.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8))
