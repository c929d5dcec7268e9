"""Draws a scene of the miniature world as a clip."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from components.corpus.world.scene import BACKGROUNDS, COLOURS, DIRECTIONS, SPEEDS, Scene
from components.runtime.compute.seeds import numpy_rng

#: Half-width of a shape as a fraction of the frame's side.
SIZE_RANGE = (0.13, 0.17)


def coverage(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Return how much of each pixel a shape of the given radius at the origin covers, in 0..1.

    Args:
        shape: one of `scene.SHAPES`.
        x: pixel centres relative to the shape's centre, in pixels, any shape of array.
        y: the same, downwards.
        radius: half-width in pixels.

    The edge is one pixel wide: coverage = clip(1/2 - signed distance, 0, 1).
    """
    if shape == "circle":
        distance = np.hypot(x, y) - radius
    elif shape == "square":
        half = 0.88 * radius
        distance = np.maximum(np.abs(x), np.abs(y)) - half
    elif shape == "triangle":
        # Isosceles, apex up, its centroid at the origin: height 2r, base 2.2r.
        height, half_base = 2.0 * radius, 1.1 * radius
        base_y, apex_y = height / 3.0, -2.0 * height / 3.0
        norm = math.hypot(height, half_base)
        side = (height * np.abs(x) - half_base * (y - apex_y)) / norm
        distance = np.maximum(side, y - base_y)
    elif shape == "cross":
        arm = 0.34 * radius
        horizontal = np.maximum(np.abs(x) - radius, np.abs(y) - arm)
        vertical = np.maximum(np.abs(x) - arm, np.abs(y) - radius)
        distance = np.minimum(horizontal, vertical)
    else:
        raise ValueError(f"{shape!r} is not a shape of this world")
    return np.clip(0.5 - distance, 0.0, 1.0)


def render(scene: Scene, seed: int, frames: int = 9, size: int = 48) -> Tensor:
    """Return the clip of a scene as uint8 (T, 3, H, W).

    The caption fixes shape, colour, direction, speed and background; the seed draws the start, the size, the
    exact shade and a small change of speed. The object stays inside the frame for the whole clip.
    """
    rng = numpy_rng(seed, "world", scene.caption)
    radius = float(rng.uniform(*SIZE_RANGE)) * size
    path = SPEEDS[scene.speed] * float(rng.uniform(0.9, 1.1)) * size
    direction = np.array(DIRECTIONS[scene.direction])
    margin = radius * 1.35 + 0.5
    low = np.full(2, margin)
    high = np.full(2, size - margin)
    # The start is drawn where the whole path fits.
    low_start = low - np.minimum(direction * path, 0.0)
    high_start = high - np.maximum(direction * path, 0.0)
    start = np.array([rng.uniform(min(a, b), max(a, b)) for a, b in zip(low_start, high_start, strict=True)])
    shade = np.clip(np.array(COLOURS[scene.colour]) + rng.uniform(-0.04, 0.04, 3), 0.0, 1.0)
    background = np.full(3, np.clip(BACKGROUNDS[scene.background] + rng.uniform(-0.03, 0.03), 0.0, 1.0))

    centres = start + direction * path * np.linspace(0.0, 1.0, frames)[:, None]
    grid = np.arange(size) + 0.5
    x = grid[None, None, :] - centres[:, 0, None, None]
    y = grid[None, :, None] - centres[:, 1, None, None]
    alpha = coverage(scene.shape, x, y, radius)[:, None]
    picture = alpha * shade[None, :, None, None] + (1.0 - alpha) * background[None, :, None, None]
    return torch.from_numpy(np.rint(picture * 255.0).astype(np.uint8))
