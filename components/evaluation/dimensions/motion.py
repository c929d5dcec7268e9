"""Dimensions of motion: temporal flickering, motion smoothness, dynamic degree.

By RAFT where its weights are, else by a classical flow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from components.corpus.world.detect import ObjectReading
from components.evaluation.dimensions.base import (
    Array,
    Dimension,
    LeftOut,
    ScoredVideo,
    Video,
    VideoBatch,
    VideoScore,
    eighths,
)
from components.evaluation.dimensions.classical_flow import FLOW
from components.evaluation.models import ModelStore
from components.evaluation.models.raft import Raft
from components.video.decode.frames import Frames
from components.video.flow import middle_along

#: VBench's thresholds are stated at a short side of 256 px: 6 px per step is dynamic, 3 px is not static.
SIDE, DYNAMIC, STATIC = 256.0, 6.0, 3.0
#: Share of a frame's pixels, the fastest, whose mean stands for the frame.
DYNAMIC_SHARE, STATIC_SHARE = 0.05, 0.02
#: Of the videos of one prompt that pass the static filter, the first five count.
STATIC_VIDEOS = 5
_NO_FLOW = LeftOut("not among the videos on which optical flow is estimated")


def flickering(frames: Frames) -> float:
    """VBench's temporal flickering of one clip: (255 - mean |f_t+1 - f_t|) / 255 over uint8 (T, 3, H, W)."""
    total = sum(int((after.short() - before.short()).abs().sum()) for before, after in pairwise(frames))
    return (255.0 - total / (math.prod(frames.shape[1:]) * (len(frames) - 1))) / 255.0


def fastest(flow: Tensor, share: float) -> list[float]:
    """Mean length of the fastest ``share`` of each field's pixels; flow (N, 2, H, W) in px."""
    lengths = torch.linalg.vector_norm(flow.double(), dim=1).flatten(1)
    number = max(1, int(lengths.shape[1] * share))
    return [float(value) for value in lengths.topk(number, dim=1).values.mean(dim=1)]


def is_dynamic(lengths: Array, side: int, fewest: int = 1) -> bool:
    """VBench's rule on one clip's flow lengths (P figures in px per step): enough steps above the threshold.

    Needs round(4 N / 16) of the N = P + 1 frames' steps above 6 px per step at a short side of 256 px, and at
    least ``fewest``. VBench has no such minimum: it calls two frames dynamic whatever they show.
    """
    threshold = DYNAMIC * side / SIDE
    return int((lengths > threshold).sum()) >= max(fewest, round(4 * (len(lengths) + 1) / 16))


def is_static(lengths: Array, around: Array, side: int) -> bool:
    """VBench's static filter: few steps above 3 px at 256 px, and no large way from first to last frame.

    Args:
        lengths: (N - 1,) px per step of the fastest 2 % of pixels.
        around: (2,) the same between the first and the last frame, both ways.
        side: the frames' short side in px.
    """
    threshold = STATIC * side / SIDE
    allowed = round(2 * (len(lengths) + 1) / 16)
    few = int((lengths > threshold).sum()) <= allowed
    return few and bool((around <= threshold * allowed * 2).all())


def _lengths(raft: Raft, first: Frames, second: Frames, share: float, border: bool = False) -> list[float]:
    """`fastest` of each pair, one pair at a time: a pair's figure must not depend on its neighbours.

    ``border``: with the padding that RAFT needs, as VBench takes it.
    """
    return [
        fastest(raft.flow(one[None], other[None], border=border), share)[0]
        for one, other in zip(first, second, strict=True)
    ]


def _flickering(video: Video, store: ModelStore) -> VideoScore:
    return VideoScore(flickering(video.frames))


def _filtered_flickering(video: Video, store: ModelStore) -> VideoScore:
    frames, raft = video.frames, store.open("raft")
    steps = _lengths(raft, frames[:-1], frames[1:], STATIC_SHARE, border=True)
    around = _lengths(raft, frames[[0, -1]], frames[[-1, 0]], STATIC_SHARE, border=True)
    static = is_static(np.array(steps), np.array(around), min(frames.shape[-2:]))
    return VideoScore(flickering(frames), details={"static": static})


def _static_only(scored: Sequence[ScoredVideo]) -> list[ScoredVideo]:
    """The first five static videos of each prompt, in the order of their file names."""
    kept: list[ScoredVideo] = []
    taken: dict[str, int] = {}
    for one in sorted(scored, key=lambda one: one.name):
        if one.score.details["static"] and taken.get(one.prompt, 0) < STATIC_VIDEOS:
            taken[one.prompt] = taken.get(one.prompt, 0) + 1
            kept.append(one)
    return kept


def _smoothness(video: Video, store: ModelStore) -> VideoScore:
    raft, frames = store.open("raft"), iter(video.frames)
    errors = []
    before = next(frames)
    for left_out, after in zip(frames, frames, strict=False):
        flow = raft.flow(before[None], after[None])[0].cpu()
        guess = middle_along(before.float() / 255.0, after.float() / 255.0, flow)
        errors.append(float((guess - left_out.float() / 255.0).abs().double().mean()))
        before = after
    return VideoScore(1.0 - float(np.mean(errors)))


def _classical_smoothness(video: Video, store: ModelStore) -> VideoScore | LeftOut:
    value = video.classical_smoothness
    return _NO_FLOW if value is None else VideoScore(value)


def _dynamic(video: Video, store: ModelStore, published: bool = False) -> VideoScore:
    stride = eighths(video.container_fps or video.fps) if published else video.stride
    frames, raft = video.frames[::stride], store.open("raft")
    lengths = np.array(_lengths(raft, frames[:-1], frames[1:], DYNAMIC_SHARE, border=published))
    # VBench decides after each step: without one, nothing moves.
    fewest = 0 if published and len(lengths) else 1
    moves = is_dynamic(lengths, min(frames.shape[-2:]), fewest)
    return VideoScore(float(moves), details={"stride": stride})


def _classical_dynamic(video: Video, store: ModelStore) -> VideoScore | LeftOut:
    lengths = video.flow_lengths
    if lengths is None:
        return _NO_FLOW
    moves = is_dynamic(np.array(lengths), min(video.frames.shape[-2:]))
    return VideoScore(float(moves), details={"stride": video.stride})


def flow_motion(clips: VideoBatch) -> Array:
    """(N,) px per step: how the fastest 5 % of each clip's pixels move; NaN where no flow was estimated."""
    clips.compute("flow_lengths")
    lengths = [video.flow_lengths for video in clips.videos]
    return np.array([np.nan if one is None else np.mean(one) for one in lengths])


def motion(clips: VideoBatch) -> tuple[Array, str]:
    """How much each clip moves, (N,) px per step, and how that was measured. Not a score: more is not better.

    In the miniature world it is the object's own way, read back: flow takes flicker and noise for motion, so
    that a model that only got cleaner would seem to have slowed down. Elsewhere it is the flow.
    """
    if not clips.has_world:
        return flow_motion(clips), "optical flow of the fastest 5 % of pixels"
    readings = [video.reading for video in clips.videos]
    found = np.array([np.nan if reading is None else object_motion(reading) for reading in readings])
    return (
        found,
        "the object's straight way from first to last frame, read back by the miniature world's detector",
    )


def object_motion(reading: ObjectReading) -> float:
    """Speed of the line through the object's centroids, px per step; 0 if found in fewer than 3 frames."""
    times = np.flatnonzero(reading.found)
    if len(times) < 3:
        return 0.0
    return float(np.hypot(*np.polyfit(times, reading.centroids[times], 1)[0]))


_DYNAMIC_DEFINITION = "share of clips in which enough steps move faster than 6 px at a short side of 256 px"
_SMOOTH_DEFINITION = "every second frame rebuilt from its neighbours: (255 - mean absolute error) / 255"

DIMENSIONS = (
    Dimension(
        name="temporal_flickering",
        definition="(255 - mean absolute difference of neighbouring frames) / 255, no static filter",
        shortest=2,
        score=_flickering,
        variant="every video counts; the published figure leaves out videos that RAFT finds moving, "
        "so that its number of videos differs from model to model",
        compat=_filtered_flickering,
        compat_models=("raft",),
        keep=_static_only,
    ),
    Dimension(
        name="motion_smoothness",
        definition=_SMOOTH_DEFINITION,
        shortest=3,
        score=_smoothness,
        models=("raft",),
        method="interpolated along RAFT flow, where VBench uses AMT-S",
    ),
    Dimension(
        name="motion_smoothness",
        definition=_SMOOTH_DEFINITION,
        shortest=3,
        score=_classical_smoothness,
        method=f"interpolated along {FLOW}, where VBench uses AMT-S",
        pooled="classical_smoothness",
    ),
    Dimension(
        name="dynamic_degree",
        definition=_DYNAMIC_DEFINITION,
        shortest=2,
        score=_dynamic,
        models=("raft",),
        variant="steps of 1/8 s by the rate the model sampled at, where it is given; the published figure "
        "goes by the rate the video file declares, counts RAFT's padding among the pixels, and calls two "
        "frames dynamic whatever they show",
        compat=partial(_dynamic, published=True),
    ),
    Dimension(
        name="dynamic_degree",
        definition=_DYNAMIC_DEFINITION,
        shortest=2,
        score=_classical_dynamic,
        method=f"{FLOW}, where VBench uses RAFT",
        pooled="flow_lengths",
    ),
)
