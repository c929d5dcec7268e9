"""Gives the miniature world's training footage the mixed quality that web video has.

A generator trained on spotless clips makes samples that hardly differ in quality, and preference learning
has nothing to act on. A stated share of its training clips is therefore degraded, mildly, and the caption
does not say so. These are properties of a *corpus*; the reward's severity ladders are another thing and live
with the reward.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

Frames = np.ndarray  # float32 (T, 3, H, W) in 0..1


def _flicker(x: Frames, rng: np.random.Generator) -> Frames:
    return x * (1.0 + rng.uniform(0.06, 0.22) * rng.standard_normal((len(x), 1, 1, 1)))


def _blur(x: Frames, rng: np.random.Generator) -> Frames:
    sigma = rng.uniform(0.7, 1.6)
    return ndimage.gaussian_filter(x, (0, 0, sigma, sigma), mode="nearest")


def _ghost(x: Frames, rng: np.random.Generator) -> Frames:
    share = rng.uniform(0.25, 0.5)
    before = np.concatenate([x[:1], x[:-1]])
    return (1.0 - share) * x + share * before


def _low_contrast(x: Frames, rng: np.random.Generator) -> Frames:
    return 0.5 + (x - 0.5) * rng.uniform(0.5, 0.8)


def _desaturate(x: Frames, rng: np.random.Generator) -> Frames:
    grey = x.mean(axis=1, keepdims=True)
    return grey + (x - grey) * rng.uniform(0.45, 0.75)


def _jitter(x: Frames, rng: np.random.Generator) -> Frames:
    shifts = rng.normal(0.0, rng.uniform(0.6, 1.6), (len(x), 2))
    return np.stack(
        [ndimage.shift(f, (0.0, *s), order=1, mode="nearest") for f, s in zip(x, shifts, strict=True)]
    )


def _warp(x: Frames, rng: np.random.Generator) -> Frames:
    frames, _, height, width = x.shape
    strength = rng.uniform(0.8, 1.8)
    field = ndimage.gaussian_filter(rng.standard_normal((frames, 2, height, width)), (0, 0, 5, 5))
    field *= strength / field.std()
    rows, columns = np.mgrid[0:height, 0:width]
    warped = np.empty_like(x)
    for t in range(frames):
        where = (rows + field[t, 0], columns + field[t, 1])
        for c in range(x.shape[1]):
            warped[t, c] = ndimage.map_coordinates(x[t, c], where, order=1, mode="nearest")
    return warped


def _stutter(x: Frames, rng: np.random.Generator) -> Frames:
    kept = np.arange(len(x))
    for t in range(1, len(x)):
        if rng.random() < 0.35:
            kept[t] = kept[t - 1]
    return x[kept]


DEGRADATIONS: dict[str, Callable[[Frames, np.random.Generator], Frames]] = {
    "flicker": _flicker,
    "blur": _blur,
    "ghost": _ghost,
    "low_contrast": _low_contrast,
    "desaturate": _desaturate,
    "jitter": _jitter,
    "warp": _warp,
    "stutter": _stutter,
}


def degrade(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply one or two mild degradations, drawn from `rng`, to a uint8 clip (T, 3, H, W).

    Returns uint8 of the same shape.
    """
    count = 1 if rng.random() < 0.7 else 2
    names = rng.choice(sorted(DEGRADATIONS), size=count, replace=False)
    x = frames.astype(np.float32) / 255.0
    for name in names:
        x = DEGRADATIONS[name](x, rng)
    return np.rint(np.clip(x, 0.0, 1.0) * 255.0).astype(np.uint8)
