"""Dimensions of motion that need no downloaded weights: flicker, smoothness, dynamic degree."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.corpus.world.detect import Reading
from components.evaluation.dimensions.base import FLOW_SIDE, Array, Clips, Dimension, reduced
from components.video.flow import METHOD, interpolate_middle

FLOW = f"classical optical flow ({METHOD}, short side <= {FLOW_SIDE} px)"
#: VBench's threshold: 6 px per step at a short side of 256 px.
DYNAMIC_THRESHOLD, DYNAMIC_SIDE = 6.0, 256.0


def flickering(frames: Tensor) -> float:
    """VBench's temporal flickering of one clip: (255 - mean |f_t+1 - f_t|) / 255 over uint8 (T, 3, H, W)."""
    steps = (frames[1:].float() - frames[:-1].float()).abs()
    return (255.0 - float(steps.mean())) / 255.0


def smoothness(clip: NDArray[np.uint8]) -> float:
    """VBench's motion smoothness of one clip (T, 3, H, W) with a classical interpolator in place of AMT-S.

    Every second frame is dropped and interpolated from its neighbours; the score is
    (255 - mean |guess - frame|) / 255.
    """
    frames, _ = reduced(torch.from_numpy(clip))
    errors = [
        float((interpolate_middle(frames[index - 1], frames[index + 1]) - frames[index]).abs().mean())
        for index in range(1, len(frames) - 1, 2)
    ]
    return 1.0 - float(np.mean(errors))


def is_dynamic(lengths: Array, side: int) -> bool:
    """VBench's rule on one clip's flow lengths (P figures in px per step): enough steps above the threshold.

    Needs round(4 N / 16) of the N = P + 1 frames' steps above 6 px per step at a short side of 256 px.
    """
    threshold = DYNAMIC_THRESHOLD * side / DYNAMIC_SIDE
    return int((lengths > threshold).sum()) >= round(4 * (len(lengths) + 1) / 16)


def flow_motion(clips: Clips) -> Array:
    """(N,) px per step: how the fastest 5 % of each clip's pixels move; NaN where no flow was estimated."""
    return np.array([np.nan if lengths is None else np.mean(lengths) for lengths in clips.fastest_motion])


def motion(clips: Clips) -> tuple[Array, str]:
    """How much each clip moves, (N,) px per step, and how that was measured. Not a score: more is not better.

    In the miniature world it is the object's own way, read back: flow takes flicker and noise for motion, so
    that a model that only got cleaner would seem to have slowed down. Elsewhere it is the flow.
    """
    if not clips.has_world:
        return flow_motion(clips), "optical flow of the fastest 5 % of pixels"
    found = np.array([np.nan if reading is None else object_motion(reading) for reading in clips.readings])
    return (
        found,
        "the object's straight way from first to last frame, read back by the miniature world's detector",
    )


def object_motion(reading: Reading) -> float:
    """Speed of the line through the object's centroids, px per step; 0 if found in fewer than 3 frames."""
    times = np.flatnonzero(reading.found)
    if len(times) < 3:
        return 0.0
    return float(np.hypot(*np.polyfit(times, reading.centroids[times], 1)[0]))


def _temporal_flickering(clips: Clips) -> Array:
    return np.array([flickering(clip) for clip in clips.frames])


def _motion_smoothness(clips: Clips) -> Array:
    return np.array([np.nan if found is None else found for found in clips.each_by_flow(smoothness)])


def _dynamic_degree(clips: Clips) -> Array:
    side = min(clips.frames.shape[-2:])
    return np.array(
        [
            np.nan if lengths is None else float(is_dynamic(np.array(lengths), side))
            for lengths in clips.fastest_motion
        ]
    )


DIMENSIONS = (
    Dimension(
        name="temporal_flickering",
        group="quality",
        definition="(255 - mean absolute difference of neighbouring frames) / 255, no static filter",
        needs="pixels",
        measure=_temporal_flickering,
    ),
    Dimension(
        name="motion_smoothness",
        group="quality",
        definition="every second frame rebuilt from its neighbours: (255 - mean absolute error) / 255",
        needs="pixels",
        method=f"interpolated along {FLOW}, where VBench uses AMT-S",
        measure=_motion_smoothness,
    ),
    Dimension(
        name="dynamic_degree",
        group="quality",
        definition="share of clips in which enough steps move faster than 6 px at a short side of 256 px",
        needs="pixels",
        method=f"{FLOW}, where VBench uses RAFT",
        measure=_dynamic_degree,
    ),
)
