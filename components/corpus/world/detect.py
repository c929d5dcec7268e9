"""Reads a scene of the miniature world back from pixels.

The world's backgrounds are grey and its objects saturated, so the object is where the chroma is. Everything
is measured, nothing is learned: the detector shares no weights, labels or statistics with any model that is
trained in this project.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage
from torch import Tensor

from components.corpus.world.render import coverage
from components.corpus.world.scene import COLOURS, DIRECTIONS, SHAPES, SPEEDS

#: A frame holds an object when its chroma (max - min over RGB, 0..1) passes this
#: in at least `MIN_AREA` pixels.
MIN_CHROMA = 0.18
MIN_AREA = 12
#: Below this net path (fraction of the side) the object is called still.
STILL_PATH = 0.08
#: Radii tried for the template, as fractions of the side.
TEMPLATE_RADII = tuple(np.linspace(0.10, 0.20, 9))
#: Blurs of the template (standard deviation in pixels at a side of 48) tried when the shape is named:
#: a blurred cross is still a cross.
TEMPLATE_BLURS = (0.0, 0.8, 1.4, 2.0)


@dataclass(frozen=True)
class ObjectReading:
    """What the detector saw in one clip of T frames, H x W pixels.

    Attributes:
        found: bool (T,), an object is present in the frame.
        centroids: float (T, 2), x and y in pixels; NaN where not found.
        masks: float (T, H, W), soft object mask in 0..1.
        iou: float (T,), IoU of the mask with the best template of the clip's shape; 0 where not found.
        shape, colour, direction, speed: the read words; None where nothing could be read.
        hue: float (T,), mean hue of the object in turns; NaN where not found.
    """

    found: np.ndarray
    centroids: np.ndarray
    masks: np.ndarray
    iou: np.ndarray
    hue: np.ndarray
    shape: str | None
    colour: str | None
    direction: str | None
    speed: str | None

    @property
    def object_found(self) -> bool:
        """Whether the object is present in at least 8 of 9 frames. VBench counts frames instead."""
        return bool(self.found.mean() >= 8 / 9 - 1e-9)


def nearest_colour(hue: float) -> str:
    """Return the world's colour nearest in hue, in turns."""

    def distance(name: str) -> float:
        gap = abs(colorsys.rgb_to_hsv(*COLOURS[name])[0] - hue) % 1.0
        return min(gap, 1.0 - gap)

    return min(COLOURS, key=distance)


def _hue(rgb: np.ndarray) -> float:
    return colorsys.rgb_to_hsv(*(float(v) for v in rgb))[0]


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:height, 0:width]
    return x + 0.5, y + 0.5


def object_masks(frames: Tensor) -> np.ndarray:
    """Return soft object masks in 0..1, (T, H, W), of uint8 frames (T, 3, H, W)."""
    rgb = frames.numpy().astype(np.float32) / 255.0
    chroma = rgb.max(axis=1) - rgb.min(axis=1)
    masks = np.zeros_like(chroma)
    for t, plane in enumerate(chroma):
        # The plateau of the object's own chroma in this frame: robust to fades and to a few hot pixels.
        strong = np.sort(plane, axis=None)[-40:]
        plateau = float(np.median(strong))
        if plateau < MIN_CHROMA:
            continue
        soft = np.clip(plane / plateau, 0.0, 1.0)
        labels, count = ndimage.label(soft > 0.5)
        if count == 0:
            continue
        sizes = ndimage.sum_labels(np.ones_like(soft), labels, np.arange(1, count + 1))
        if sizes.max() < MIN_AREA:
            continue
        largest = ndimage.binary_dilation(labels == 1 + int(np.argmax(sizes)), iterations=1)
        masks[t] = np.where(largest, soft, 0.0)
    return masks


def template_iou(mask: np.ndarray, shape: str, centroid: np.ndarray) -> float:
    """Return the best IoU of a soft mask (H, W) with sharp templates of a shape, over all radii.

    The templates are centred at (x, y) pixels. Soft IoU: sum(min(a, b)) / sum(max(a, b)).
    """
    height, width = mask.shape
    # Templates are zero away from the object: only a window is compared, and what the mask has outside it
    # counts against every template.
    reach = round(0.3 * width)
    top, left = (max(0, int(centroid[axis]) - reach) for axis in (1, 0))
    window = (slice(top, min(height, top + 2 * reach)), slice(left, min(width, left + 2 * reach)))
    x, y = (axis[window] for axis in _grid(height, width))
    inside = mask[window]
    outside = float(mask.sum() - inside.sum())
    best = 0.0
    for radius in TEMPLATE_RADII:
        template = coverage(shape, x - centroid[0], y - centroid[1], radius * width)
        common = float(np.minimum(inside, template).sum())
        best = max(best, common / (float(inside.sum() + template.sum()) - common + outside))
    return best


def object_alpha(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return how much of each pixel is object, (H, W) in 0..1, of one frame (3, H, W).

    A pixel's colour is unmixed into object and background. Chroma alone is the blurriest part of a decoded
    video; the mixture b + a (o - b) also uses brightness. Least squares: a = (x - b).(o - b) / |o - b|^2.
    """
    near = ndimage.binary_dilation(mask > 0.2, iterations=4)
    core = mask > 0.85
    if near.all() or not core.any():
        return mask
    background = np.median(rgb[:, ~near], axis=1)
    difference = rgb[:, core].mean(axis=1) - background
    alpha = np.tensordot(difference, rgb - background[:, None, None], axes=1) / float(difference @ difference)
    return np.where(near, np.clip(alpha, 0.0, 1.0), 0.0)


@lru_cache(maxsize=4)
def _shape_templates(side: int) -> np.ndarray:
    """Return zero-mean, unit-norm templates (shapes, radii * blurs, pixels of a window of 0.6 sides)."""
    window = 2 * round(0.3 * side)
    y, x = np.mgrid[0:window, 0:window] + 0.5 - window / 2
    templates = np.array(
        [
            [
                ndimage.gaussian_filter(coverage(shape, x, y, radius * side), blur * side / 48.0).ravel()
                for radius in TEMPLATE_RADII
                for blur in TEMPLATE_BLURS
            ]
            for shape in SHAPES
        ]
    )
    templates -= templates.mean(axis=-1, keepdims=True)
    return templates / np.linalg.norm(templates, axis=-1, keepdims=True)


def name_shape(mean_mask: np.ndarray) -> str:
    """Return the shape whose template, of any radius and blur, correlates best with a centred mask (H, W)."""
    height, width = mean_mask.shape
    window = 2 * round(0.3 * width)
    top, left = (height - window) // 2, (width - window) // 2
    part = mean_mask[top : top + window, left : left + window].ravel()
    scores = _shape_templates(width) @ (part - part.mean())
    return SHAPES[int(scores.max(axis=1).argmax())]


def average_mask(masks: np.ndarray, centroids: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the object's mean mask (H, W) over the frames it was found in, moved to the frame's centre."""
    height, width = masks.shape[1:]
    centre = np.array([width / 2.0, height / 2.0])
    moved = [
        ndimage.shift(masks[t], (centre - centroids[t])[::-1], order=1, mode="constant")
        for t in np.flatnonzero(found)
    ]
    return np.mean(moved, axis=0)


def read_back(frames: Tensor) -> ObjectReading:
    """Read a clip, uint8 (T, 3, H, W), back into the words of the miniature world."""
    count, _, height, width = frames.shape
    masks = object_masks(frames)
    weight = masks.sum(axis=(1, 2))
    found = weight > 0
    x, y = _grid(height, width)
    with np.errstate(invalid="ignore", divide="ignore"):
        centroids = np.stack([(masks * x).sum((1, 2)) / weight, (masks * y).sum((1, 2)) / weight], axis=1)
    rgb = frames.numpy().astype(np.float32) / 255.0
    hue = np.full(count, np.nan)
    core = masks * (masks > 0.8)
    for t in np.flatnonzero(found):
        hue[t] = _hue((rgb[t] * core[t]).sum((1, 2)) / max(float(core[t].sum()), 1e-6))
    if not found.any():
        return ObjectReading(found, centroids, masks, np.zeros(count), hue, None, None, None, None)

    mean_rgb = (rgb * core[:, None]).sum((0, 2, 3)) / max(float(core.sum()), 1e-6)
    colour = nearest_colour(_hue(mean_rgb))
    alphas = np.stack([object_alpha(rgb[t], masks[t]) if found[t] else masks[t] for t in range(count)])
    shape = name_shape(average_mask(alphas, centroids, found))
    iou = np.array([template_iou(masks[t], shape, centroids[t]) if found[t] else 0.0 for t in range(count)])
    direction, speed = _motion(centroids, found, width)
    return ObjectReading(found, centroids, masks, iou, hue, shape, colour, direction, speed)


def _motion(centroids: np.ndarray, found: np.ndarray, width: int) -> tuple[str | None, str | None]:
    """Return direction and speed from a least-squares line through the centroids over time."""
    times = np.flatnonzero(found)
    if len(times) < 3:
        return None, None
    velocity = np.polyfit(times, centroids[times], 1)[0]
    path = velocity * (len(found) - 1) / width
    length = float(np.hypot(*path))
    if length < STILL_PATH:
        return None, None
    direction = max(DIRECTIONS, key=lambda name: float(np.dot(DIRECTIONS[name], path)))
    speed = min(SPEEDS, key=lambda name: abs(SPEEDS[name] - length))
    return direction, speed
