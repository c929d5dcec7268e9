"""The definitions again, slowly and in float64: what the dimensions are compared with. No code is shared."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


def cubic(x: float, a: float) -> float:
    """Keys' cubic convolution kernel."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def plain_weights(old: int, new: int, kernel: str, scale: float | None = None) -> Array:
    """(new, old) weights of interpolation between pixel centres without smoothing, borders repeated."""
    step = 1 / scale if scale is not None else old / new
    found = np.zeros((new, old))
    for row in range(new):
        at = (row + 0.5) * step - 0.5
        if kernel == "bilinear":
            at = max(at, 0.0)
        first = math.floor(at)
        near = range(first, first + 2) if kernel == "bilinear" else range(first - 1, first + 3)
        for place in near:
            weight = 1 - abs(at - place) if kernel == "bilinear" else cubic(at - place, -0.75)
            found[row, min(max(place, 0), old - 1)] += weight
    return found


def smooth_weights(old: int, new: int, kernel: str) -> Array:
    """(new, old) weights of interpolation whose kernel is widened when shrinking, as Pillow does."""
    step = old / new
    wide = max(step, 1.0)
    reach = (1.0 if kernel == "bilinear" else 2.0) * wide
    found = np.zeros((new, old))
    for row in range(new):
        at = (row + 0.5) * step
        for place in range(max(0, int(at - reach + 0.5)), min(old, int(at + reach + 0.5))):
            away = (place + 0.5 - at) / wide
            found[row, place] = max(0.0, 1 - abs(away)) if kernel == "bilinear" else cubic(away, -0.5)
    return found / found.sum(axis=1, keepdims=True)


def gaussian_weights(old: int, new: int) -> Array:
    """(new, old) weights of a Gaussian with a deviation of half a source pixel, cut off at one and a half."""
    found = np.zeros((new, old))
    for row in range(new):
        at = (row + 0.5) * old / new
        for place in range(old):
            away = abs(place + 0.5 - at)
            if away <= 1.5:
                found[row, place] = math.exp(-(away**2) / (2 * 0.5**2))
    return found / found.sum(axis=1, keepdims=True)


def resized(frame: Array, down: Array, across: Array) -> Array:
    """(3, H, W) by the weights of its rows and of its columns."""
    return np.stack([down @ channel @ across.T for channel in frame])


def to_shorter(frame: Array, side: int, weights: Callable[[int, int], Array]) -> Array:
    """(3, H, W) with its shorter side at ``side``."""
    height, width = frame.shape[1:]
    size = (side, int(side * width / height)) if height <= width else (int(side * height / width), side)
    return resized(frame, weights(height, size[0]), weights(width, size[1]))


def middle_square(frame: Array, side: int) -> Array:
    top, left = round((frame.shape[1] - side) / 2), round((frame.shape[2] - side) / 2)
    return frame[:, top : top + side, left : left + side]


def scaled(frame: Array, mean: list[float], std: list[float]) -> torch.Tensor:
    """(1, 3, h, w) float64 of a frame in 0..1."""
    shaped = (np.array(part)[:, None, None] for part in (mean, std))
    return torch.from_numpy((frame - next(shaped)) / next(shaped))[None]


def unit(vector: torch.Tensor) -> Array:
    flat = vector.detach().reshape(-1).numpy()
    return np.asarray(flat / math.sqrt(sum(x * x for x in flat)))


def consistency(features: list[Array]) -> float:
    """VBench's subject and background consistency of one video."""
    total = 0.0
    for t in range(1, len(features)):
        before = max(0.0, sum(a * b for a, b in zip(features[t], features[t - 1], strict=True)))
        first = max(0.0, sum(a * b for a, b in zip(features[t], features[0], strict=True)))
        total += (before + first) / 2
    return total / (len(features) - 1)


def sixteen(frames: int, number: int = 16) -> list[int]:
    """The middles of as many stretches as there are frames to fill, the last frame repeated."""
    if frames <= number:
        return list(range(frames)) + [frames - 1] * (number - frames)
    borders = [math.floor(k * frames / number + 1e-9) for k in range(number + 1)]
    return [(borders[k] + borders[k + 1] - 1) // 2 for k in range(number)]


def dino_positions(model: Any, rows: int, columns: int) -> torch.Tensor:
    """DINO's position table on another grid: bicubic, at (new + 0.1) / old."""
    table = model.embeddings.position_embeddings.detach()[0]
    side = int(math.sqrt(len(table) - 1))
    if (rows, columns) == (side, side):
        return table[None]
    down, across = (plain_weights(side, new, "bicubic", (new + 0.1) / side) for new in (rows, columns))
    grid = table[1:].numpy().reshape(side, side, -1)
    found = np.einsum("ri,cj,ijd->rcd", down, across, grid).reshape(rows * columns, -1)
    return torch.cat([table[:1], torch.from_numpy(found)])[None]


def prepared(frame: Array, settings: dict[str, Any]) -> Array:
    """(3, H, W) levels to what a model's own preprocessor configuration asks for."""
    kernel = "bicubic" if settings["resample"] == 3 else "bilinear"
    size = settings["size"]

    def weights(old: int, new: int) -> Array:
        return smooth_weights(old, new, kernel)

    if "shortest_edge" in size:
        small = to_shorter(frame, size["shortest_edge"], weights)
    else:
        small = resized(
            frame, weights(frame.shape[1], size["height"]), weights(frame.shape[2], size["width"])
        )
    small = np.clip(small, 0, 255)
    if settings.get("do_center_crop"):
        small = middle_square(small, settings["crop_size"]["height"])
    small = small * settings["rescale_factor"] - (1.0 if settings.get("offset") else 0.0)
    if settings.get("do_normalize", True):
        mean, std = (np.array(settings[f"image_{part}"])[:, None, None] for part in ("mean", "std"))
        small = (small - mean) / std
    return small


def fastest(flow: Array, share: float) -> float:
    """Mean length of the longest ``share`` of a field (2, H, W)."""
    lengths = sorted(
        (math.hypot(u, v) for u, v in zip(flow[0].ravel(), flow[1].ravel(), strict=True)), reverse=True
    )
    number = int(len(lengths) * share)
    return sum(lengths[:number]) / number


def half_way(first: Array, second: Array, flow: Array) -> Array:
    """The frame between two frames (3, H, W) in 0..1 whose flow (2, H, W) is known, pixel by pixel."""
    height, width = flow.shape[1:]
    total = np.zeros((3, height, width))
    for y in range(height):
        for x in range(width):
            u, v = flow[0, y, x], flow[1, y, x]
            unlike = np.abs(first[:, y, x] - _sample(second, x + u, y + v)).mean()
            trust = max(math.exp(-20 * unlike), 1e-4)
            at_x, at_y = x + u / 2, y + v / 2
            for column in (math.floor(at_x), math.floor(at_x) + 1):
                for row in (math.floor(at_y), math.floor(at_y) + 1):
                    share = (1 - abs(at_x - column)) * (1 - abs(at_y - row))
                    if 0 <= row < height and 0 <= column < width:
                        total[:, row, column] += trust * share * np.array([u, v, 1.0])
    found = np.zeros_like(first)
    for y in range(height):
        for x in range(width):
            u, v = flow[:, y, x]
            if total[2, y, x] > 1e-3:
                u, v = total[:2, y, x] / total[2, y, x]
            one, other = _sample(first, x - u / 2, y - v / 2), _sample(second, x + u / 2, y + v / 2)
            found[:, y, x] = np.clip((one + other) / 2, 0, 1)
    return found


def _sample(frame: Array, x: float, y: float) -> Array:
    """Bilinear, borders repeated."""
    height, width = frame.shape[1:]
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    a, b = x - left, y - top
    upper = (1 - a) * frame[:, top, left] + a * frame[:, top, left + 1]
    lower = (1 - a) * frame[:, top + 1, left] + a * frame[:, top + 1, left + 1]
    return np.asarray((1 - b) * upper + b * lower)
