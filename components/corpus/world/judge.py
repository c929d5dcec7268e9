"""The oracle judge: the miniature world's exact quality of a clip, read back from its pixels.

It measures how well the clip keeps the world's own laws (a verifiable reward).
In this world one rigid, evenly coloured, sharp-edged object moves evenly along a straight line, inside the
frame, over a plain and constant background. Each law gives one defect in physical units, 0 where it is kept.
A defect d becomes a part 1 / (1 + (d / h)^2): 1 at no defect, one half at the half-point h, falling ever
after, and flat near 0 so that rounding to 8 bits costs nothing.

quality = presence x the weighted geometric mean of the parts. Geometric, so that no part pays for another: a
clip that gains sharpness and loses its motion does not come out even, as it would in a sum. A part never
falls below `PART_FLOOR`, so that one ruined part does not hide the rest. Presence multiplies, because
nothing can be measured where there is no object.

The judge knows no caption and no model: it shares no code, label, weight or statistic with the learned
reward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from components.corpus.world.detect import ObjectReading, nearest_colour, read_back
from components.corpus.world.scene import COLOURS, SPEEDS

Array = NDArray[np.float64]

PART_FLOOR = 0.02


@dataclass(frozen=True)
class Law:
    """One law: its weight, the defect that pristine clips measure, the half-point above it, the unit."""

    weight: float
    free: float
    half: float
    unit: str


#: `free` is what a pristine clip still measures, from anti-aliasing, the steps between the detector's
#: templates and 8-bit rounding.
LAWS: dict[str, Law] = {
    "rigidity": Law(0.17, 0.08, 0.12, "1 - IoU with the template of the clip's own shape, mean over frames"),
    "size": Law(0.06, 0.01, 0.08, "standard deviation over time of the object's width, relative"),
    "path": Law(0.15, 0.10, 0.80, "px at 48 px: rms distance from even motion along a straight line"),
    "motion": Law(0.20, 0.00, 0.30, "share by which the path falls short of the slowest object of the world"),
    "colour": Law(0.10, 0.01, 0.07, "rms change over time and unevenness of the object's colour, RGB 0..1"),
    "saturation": Law(0.04, 0.08, 0.40, "share by which the object is paler than the world's nearest colour"),
    "background_time": Law(0.09, 0.003, 0.03, "rms change of the background from frame to frame, RGB 0..1"),
    "background_space": Law(0.09, 0.003, 0.03, "rms unevenness of the background inside a frame, RGB 0..1"),
    "sharpness": Law(0.08, 1.10, 0.70, "px at 48 px: width of the object's edge"),
    "inside": Law(0.02, 0.00, 0.15, "share of the object's width that touches the frame's border"),
}


@dataclass(frozen=True)
class Judgement:
    """The verdict on one clip; everything in 0..1, higher is better.

    Attributes:
        quality: presence x weighted geometric mean of the parts.
        presence: share of frames in which an object was found.
        parts: one figure for each of `LAWS`; all 0 for a clip without an object.
    """

    quality: float
    presence: float
    parts: dict[str, float]


def judge(frames: Tensor, reading: ObjectReading | None = None) -> Judgement:
    """Judge one clip.

    Args:
        frames: uint8 (T, 3, H, W), T >= 3.
        reading: what the detector saw in these frames, when that is at hand already.

    Raises:
        ValueError: fewer than three frames (there is no path to speak of).
    """
    if len(frames) < 3:
        raise ValueError(f"a clip of {len(frames)} frames has no path; at least 3 are needed")
    reading = reading or read_back(frames)
    presence = float(reading.found.mean())
    if reading.found.sum() < 2:
        return Judgement(0.0, presence, dict.fromkeys(LAWS, 0.0))
    measured = defects(frames, reading)
    parts = {name: _part(measured[name], law) for name, law in LAWS.items()}
    total = sum(law.weight for law in LAWS.values())
    mean = math.exp(sum(law.weight * math.log(parts[name]) for name, law in LAWS.items()) / total)
    return Judgement(presence * mean, presence, parts)


def defects(frames: Tensor, reading: ObjectReading) -> dict[str, float]:
    """Measure how far a clip, with an object in two frames or more, is from each law, in its unit."""
    rgb = frames.numpy().astype(np.float64) / 255.0
    times = np.flatnonzero(reading.found)
    masks = reading.masks.astype(np.float64)
    side = frames.shape[-1]
    backdrop = _backdrop(masks)
    residual, path = _motion(reading.centroids[times], times, len(frames), side)
    widths = np.sqrt(masks[times].sum(axis=(1, 2)))
    object_colour, unevenness = _object_colour(rgb[times], masks[times])
    palette = COLOURS[nearest_colour(float(np.nanmedian(reading.hue)))]
    chroma = float((object_colour.max(axis=1) - object_colour.min(axis=1)).mean())
    slowest = 0.9 * min(SPEEDS.values())
    change, texture = _background(rgb, backdrop)
    return {
        "rigidity": 1.0 - float(reading.iou[times].mean()),
        "size": float(widths.std() / widths.mean()),
        "path": residual,
        "motion": max(0.0, 1.0 - path / slowest),
        "colour": math.hypot(float(object_colour.std(axis=0).max()), unevenness),
        "saturation": max(0.0, 1.0 - chroma / (max(palette) - min(palette))),
        "background_time": change,
        "background_space": texture,
        "sharpness": _edge_width(rgb[times], masks[times], backdrop[times], object_colour) * 48.0 / side,
        "inside": _border_share(masks[times], widths),
    }


def _part(defect: float, law: Law) -> float:
    beyond = max(0.0, defect - law.free)
    return PART_FLOOR + (1.0 - PART_FLOOR) / (1.0 + (beyond / law.half) ** 2)


def _backdrop(masks: Array) -> NDArray[np.bool_]:
    """(T, H, W): pixels at least three pixels away from the object."""
    near = np.ones((1, 3, 3), dtype=bool)
    return ~ndimage.binary_dilation(masks > 0.1, structure=near, iterations=2)


def _motion(centroids: Array, times: NDArray[np.int64], count: int, side: int) -> tuple[float, float]:
    """Residual of x(t) = a + b t, px at 48 px (bends and uneven steps count), and the path over the side."""
    if len(times) < 3:
        return 0.0, 0.0
    line = np.polyfit(times, centroids, 1)
    guess = line[1] + times[:, None] * line[0]
    # Two parameters per axis are fitted, so the residual is spread over the remaining frames.
    rms = math.sqrt(float(((centroids - guess) ** 2).sum()) / (len(times) - 2))
    return rms * 48.0 / side, float(np.hypot(*line[0])) * (count - 1) / side


def _object_colour(rgb: Array, masks: Array) -> tuple[Array, float]:
    """Mean colour of the object's core in each frame (T, 3), and the rms spread of colour inside the core."""
    core = masks > 0.8
    colours, spreads = [], []
    for frame, inside in zip(rgb, core, strict=True):
        pixels = frame[:, ndimage.binary_erosion(inside) if inside.sum() > 40 else inside]
        if pixels.shape[1] == 0:
            pixels = frame[:, inside] if inside.any() else frame.reshape(3, -1)
        colours.append(pixels.mean(axis=1))
        spreads.append(pixels.var(axis=1).mean())
    return np.array(colours), math.sqrt(float(np.mean(spreads)))


def _background(rgb: Array, backdrop: NDArray[np.bool_]) -> tuple[float, float]:
    """Change over time and unevenness over space of the pixels away from the object, both rms over RGB."""
    both = backdrop[1:] & backdrop[:-1]
    steps = ((rgb[1:] - rgb[:-1]) ** 2).mean(axis=1)
    change = math.sqrt(float(steps[both].mean())) if both.any() else 0.0
    texture = []
    for frame, outside in zip(rgb, backdrop, strict=True):
        if outside.any():
            texture.append(frame[:, outside].var(axis=1).mean())
    return change, math.sqrt(float(np.mean(texture))) if texture else 0.0


def _edge_width(rgb: Array, masks: Array, backdrop: NDArray[np.bool_], colours: Array) -> float:
    """Mean width of the object's edge in pixels.

    Each pixel near the object is placed between the background's colour (0) and the object's (1). Summed
    4 a (1 - a) is two thirds of a linear ramp's width for each pixel of outline, and the summed gradient is
    the outline's length.
    """
    widths = []
    for frame, mask, outside, colour in zip(rgb, masks, backdrop, colours, strict=True):
        ground = frame[:, outside].mean(axis=1) if outside.any() else frame.reshape(3, -1).mean(axis=1)
        axis = colour - ground
        length = float(axis @ axis)
        near = ndimage.binary_dilation(mask > 0.1, iterations=4)
        if length < 1e-4 or not near.any():
            continue
        place = np.clip(np.tensordot(axis, frame - ground[:, None, None], axes=1) / length, 0.0, 1.0)
        place = np.where(near, place, 0.0)
        down, right = np.gradient(place)
        outline = float(np.hypot(down, right).sum())
        widths.append(1.5 * float((4 * place * (1 - place)).sum()) / max(outline, 1e-6))
    return float(np.mean(widths)) if widths else 1e3


def _border_share(masks: Array, widths: Array) -> float:
    """Mask mass on the frame's outermost pixels over the object's width, mean over frames."""
    ring = np.ones(masks.shape[1:], dtype=bool)
    ring[1:-1, 1:-1] = False
    return float((masks[:, ring].sum(axis=1) / widths).mean())
