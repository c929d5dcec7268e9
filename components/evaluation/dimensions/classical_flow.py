"""Motion measured without weights: classical optical flow on reduced frames, and worker processes for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.runtime.compute.devices import available_cpus
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.signals import StopSignal
from components.video.decode.frames import Frames
from components.video.filters import resize
from components.video.flow import METHOD, interpolate_middle, optical_flow

#: Share of a frame's pixels, the fastest, that stand for its motion (as in VBench's dynamic degree).
FASTEST_SHARE = 0.05
#: Larger frames are reduced to this short side (px) before a classical flow: it would take minutes a clip.
FLOW_SIDE = 128
#: How the flow is named in results.
FLOW = f"classical optical flow ({METHOD}, short side <= {FLOW_SIDE} px)"
#: Frames that are reduced at once.
BATCH = 16
#: Below this many clips, starting worker processes costs more than it saves.
WORTH_WORKERS = 64


@contextmanager
def workers(clips: int) -> Iterator[ProcessPool | None]:
    """A pool of one process per core for the flow of many clips, or None when a pool would not pay."""
    cores = available_cpus()
    if clips < WORTH_WORKERS or cores < 2:
        yield None
        return
    # Whoever maps over it enters the signal: between two maps a stop ends the process at once.
    with ProcessPool(min(cores, 8), StopSignal()) as pool:
        yield pool


def reduced(clip: Frames | NDArray[np.uint8]) -> tuple[Tensor, float]:
    """Float frames in 0..1, short side at most ``FLOW_SIDE`` px, and the factor they were reduced by."""
    frames = torch.from_numpy(clip) if isinstance(clip, np.ndarray) else clip
    factor = max(1.0, min(frames.shape[-2:]) / FLOW_SIDE)
    size = (round(frames.shape[-2] / factor), round(frames.shape[-1] / factor))
    small = [
        part.float() / 255.0 if factor == 1 else resize(part.float() / 255.0, *size, "bilinear")
        for part in frames.split(BATCH)
    ]
    return torch.cat(small), factor


def fastest_motion(clip: Frames | NDArray[np.uint8]) -> list[float]:
    """Mean flow length of the fastest 5 % of pixels for each pair of neighbouring frames.

    Args:
        clip: uint8 (T, 3, H, W), T >= 2.

    Returns:
        T - 1 figures in pixels per frame. A pair of identical frames is 0 without estimating a flow.
    """
    frames, factor = reduced(clip)
    lengths = []
    for before, after in pairwise(frames):
        if torch.equal(before, after):
            lengths.append(0.0)
            continue
        length = torch.linalg.vector_norm(optical_flow(before, after), dim=0).flatten()
        lengths.append(factor * float(length.topk(max(1, int(len(length) * FASTEST_SHARE))).values.mean()))
    return lengths


def smoothness(clip: Frames | NDArray[np.uint8]) -> float:
    """VBench's motion smoothness of one clip (T, 3, H, W) with a classical interpolator in place of AMT-S.

    Every second frame is dropped and interpolated from its neighbours; the score is
    (255 - mean |guess - frame|) / 255.
    """
    frames, _ = reduced(clip)
    errors = [
        float((interpolate_middle(frames[index - 1], frames[index + 1]) - frames[index]).abs().mean())
        for index in range(1, len(frames) - 1, 2)
    ]
    return 1.0 - float(np.mean(errors))
