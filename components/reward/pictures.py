"""Clips of pictures that nobody took: overlapping textured shapes under a moving camera, new ones without
end.

Real footage is scarce where nothing may be downloaded, and a reward trained on ten photographs knows ten
photographs.
Occlusion of shapes whose sizes follow a power law gives much of the statistics of natural pictures (the dead
leaves model: Matheron 1968; Lee, Mumford and Huang 2001): edges of every strength at every scale, flat and
textured regions, blurred backgrounds. What moves, moves as in footage: the camera, and things in front of
the background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.corpus.camera import draw_move, film
from components.reward.filtering import gaussian_blur
from components.runtime.seeds import derive, numpy_rng

MARGIN = 4.0
"""Side of a picture in sides of a clip: room for the camera."""
SHAPES = (60, 300)
"""Fewest and most shapes in a picture."""


class DrawnClips:
    """N clips of pictures, drawn when they are asked for; indexed like a tensor with a list of rows or a
    slice."""

    def __init__(self, count: int, seed: int, frames: int, height: int, width: int) -> None:
        self.count, self.seed, self.size = count, seed, (frames, height, width)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Tensor:
        rows = torch.arange(self.count)[index].reshape(-1).tolist()
        return film_pictures([derive(self.seed, "picture", row) for row in rows], *self.size)


def film_pictures(seeds: Sequence[int], frames: int, height: int, width: int) -> Tensor:
    """One clip for each seed: uint8 (N, T, 3, H, W)."""
    return torch.stack([_clip(seed, frames, height, width) for seed in seeds])


def _clip(seed: int, frames: int, height: int, width: int) -> Tensor:
    rng = numpy_rng(seed, "pictures")
    clip = _filmed(rng, frames, height, width)
    if rng.random() < 0.5:
        return clip
    # Something in front moves its own way.
    return laid_over(clip, _filmed(rng, frames, height, width), rng)


def laid_over(clip: Tensor, front: Tensor, rng: np.random.Generator) -> Tensor:
    """A clip with an oval piece of another in front, on a path of its own; all uint8 (T, 3, H, W)."""
    frames, _, height, width = clip.shape
    side = min(height, width)
    radius = side * float(rng.uniform(0.15, 0.45))
    stretch = float(rng.uniform(0.6, 1.6))
    path = rng.uniform(-0.35, 0.35, 2) * side
    middle = rng.uniform(0.25, 0.75, 2) * (height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    masks = []
    for time in np.linspace(-0.5, 0.5, frames):
        cy, cx = middle + path * time
        masks.append(np.clip(0.5 + radius - np.hypot(y - cy, (x - cx) * stretch), 0.0, 1.0))
    mask = torch.from_numpy(np.stack(masks)).float()[:, None]
    return (mask * front.float() + (1 - mask) * clip.float()).round().to(torch.uint8)


def _filmed(rng: np.random.Generator, frames: int, height: int, width: int) -> Tensor:
    picture = torch.from_numpy(draw(rng, round(MARGIN * max(height, width)))).float()
    while (move := draw_move(rng, (picture.shape[1], picture.shape[2]), (height, width), frames)) is None:
        pass
    return film(picture, move, (height, width), frames)


def draw(rng: np.random.Generator, side: int) -> np.ndarray:
    """A picture, (3, side, side) float32 in 0..1."""
    fields = [_field(rng, side, float(rng.uniform(0.8, 2.2))) for _ in range(3)]
    palette = rng.uniform(0.0, 1.0, (int(rng.integers(3, 9)), 3)) ** float(rng.uniform(0.6, 1.6))
    muted = min(1.0, float(rng.uniform(0.1, 1.1)))
    palette = muted * palette.mean(1, keepdims=True) + (1 - muted) * palette
    picture = np.empty((3, side, side), np.float32)
    picture[:] = palette[0][:, None, None] + 0.3 * float(rng.random()) * fields[0]
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    small, large = side / 60, side / 2.5
    count = int(rng.integers(*SHAPES))
    behind = int(count * float(rng.uniform(0.0, 0.7)))
    blur = float(rng.uniform(0.0, 2.5)) * float(rng.random() < 0.5)
    for number in range(count):
        if number == behind and blur > 0.3:
            picture = gaussian_blur(torch.from_numpy(picture), blur).numpy()
        # Radii with density r^-3 between the smallest and the largest.
        share = float(rng.random())
        radius = 1.0 / math.sqrt((1 - share) / small**2 + share / large**2)
        cy, cx = rng.uniform(0, side, 2)
        box = tuple(slice(max(0, int(c - 1.6 * radius - 2)), int(c + 1.6 * radius + 3)) for c in (cy, cx))
        dy, dx = y[box] - cy, x[box] - cx
        angle = float(rng.uniform(0, math.pi))
        across = math.cos(angle) * dx + math.sin(angle) * dy
        along = (math.cos(angle) * dy - math.sin(angle) * dx) * float(rng.uniform(1.0, 2.5))
        if rng.random() < 0.6:
            distance = np.hypot(across, along) - radius
        else:
            distance = np.maximum(np.abs(across), np.abs(along)) - 0.9 * radius
        cover = np.clip(0.5 - distance / float(rng.choice((1.0, 1.0, 3.0))), 0.0, 1.0)
        colour = palette[int(rng.integers(len(palette)))] + rng.normal(0, 0.06, 3)
        shade = (dx * rng.normal() + dy * rng.normal()) / radius * 0.1 * float(rng.random())
        field = fields[int(rng.integers(3))][box]
        grain = 0.35 * float(rng.random()) ** 2 * field
        paint = colour[:, None, None] + shade + grain
        picture[(slice(None), *box)] += cover * (paint - picture[(slice(None), *box)])
    return np.clip(picture, 0.0, 1.0).astype(np.float32)


def _field(rng: np.random.Generator, side: int, slope: float) -> np.ndarray:
    """(side, side) noise with spectrum 1 / f^slope, standard deviation 1."""
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    radius[0, 0] = 1.0
    waves = np.fft.rfft2(rng.standard_normal((side, side))) / radius**slope
    field = np.fft.irfft2(waves, s=(side, side))
    return ((field - field.mean()) / field.std()).astype(np.float32)
