"""Changes that are no damage, or not in one direction: they stand in no ladder and in no ranking.

A reward is measured on them instead: reversed time must not move its score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from components.video.filters import luma


@dataclass(frozen=True)
class Control:
    """A named change of clips (B, T, 3, H, W) float in 0..1; `values` are its settings, from side to side."""

    name: str
    values: tuple[float, ...]
    unit: str
    summary: str
    change: Callable[[Tensor, float], Tensor]

    def __call__(self, frames: Tensor, value: float | None = None) -> Tensor:
        """Changes a batch; the first of `values` by default. Same shape, dtype and device, inside 0..1."""
        value = self.values[0] if value is None else value
        return self.change(frames, value).clamp(0.0, 1.0).to(frames.dtype)


CONTROLS: dict[str, Control] = {}
"""Every control by name."""


def _control(values: Sequence[float], unit: str) -> Callable[[Callable[[Tensor, float], Tensor]], None]:
    def register(change: Callable[[Tensor, float], Tensor]) -> None:
        name = change.__name__
        summary = (change.__doc__ or "").strip().splitlines()[0].rstrip(".")
        CONTROLS[name] = Control(name, tuple(values), unit, summary, change)

    return register


@_control((1.0,), "-")
def reversed_time(frames: Tensor, value: float) -> Tensor:
    """Played backwards: neutral, the score must stay."""
    return frames.flip(1)


@_control((-0.15, -0.08, 0.08, 0.15), "brightness added, 0..1")
def mean_shift(frames: Tensor, value: float) -> Tensor:
    """A little darker or brighter throughout: signed, hence not ordered."""
    return frames + value


@_control((-0.3, -0.15, 0.15, 0.3), "contrast added, share")
def linear_contrast(frames: Tensor, value: float) -> Tensor:
    """A little less or more contrast round the clip's mean: signed, hence not ordered."""
    mean = luma(frames).mean(dim=(1, 2, 3))[:, None, None, None, None]
    return mean + (frames - mean) * (1.0 + value)
