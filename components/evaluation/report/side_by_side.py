"""The clips of the page: which pairs are shown, and each pair as one small video."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from components.evaluation.samples import Request
from components.video.clip import Clip
from components.video.codec import write_video

#: Shorter side (px) to which small clips are enlarged, longest side of large ones, gap between the halves.
SHOWN_SIDE, LARGEST_SIDE, GAP = 192, 512, 8
#: Most bytes of all videos together; base64 makes a third more of them and the page stays under 15 MB.
BUDGET = 9 * 2**20
#: H.264 quality of the page's videos; those in videos/ are better.
CRF = 16


@dataclass(frozen=True)
class ExamplePair:
    """A pair on the page: which one, why, its prompt and the figures of both sides."""

    group: str
    place: int
    prompt: str
    index: int
    figures: dict[str, tuple[float, float]]


def choose_pairs(
    requests: Sequence[Request],
    figures: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    number: int,
    rng: np.random.Generator,
) -> list[ExamplePair]:
    """``number`` best, worst and random pairs of the N requests, none twice.

    Args:
        requests: what was drawn.
        figures: (N,) values of base and aligned, by name; the change of the first one decides.
        number: pairs of each group.
        rng: source of the random ones.
    """
    base, aligned = next(iter(figures.values()))
    order = np.argsort(-np.nan_to_num(aligned - base, nan=0.0), kind="stable").tolist()
    number = min(number, max(1, len(order) // 3)) if len(order) >= 3 else 1
    best = order[:number]
    worst = [place for place in reversed(order) if place not in best][:number]
    rest = [place for place in range(len(order)) if place not in best and place not in worst]
    drawn = [int(place) for place in rng.permutation(rest)[:number]] if rest else []
    return [
        ExamplePair(
            group,
            place,
            requests[place].prompt,
            requests[place].index,
            {name: (float(before[place]), float(after[place])) for name, (before, after) in figures.items()},
        )
        for group, places in (("best", best), ("worst", worst), ("random", drawn))
        for place in places
    ]


def beside(base: Tensor, aligned: Tensor, fps: float, shrink: int = 1) -> Clip:
    """Base on the left, aligned on the right, one clip: the two can never fall out of step.

    Args:
        base: uint8 (T, 3, H, W).
        aligned: the same shape.
        fps: frames per second.
        shrink: whole factor by which both sides are made smaller (mean of the pixels); 1 enlarges clips under
            `SHOWN_SIDE` with hard pixels instead.
    """
    halves = [base, aligned]
    factor = round(SHOWN_SIDE / min(base.shape[-2:])) if shrink == 1 else 1
    if factor > 1:
        halves = [half.repeat_interleave(factor, -1).repeat_interleave(factor, -2) for half in halves]
    if shrink > 1:
        halves = [functional.avg_pool2d(half.float(), shrink).round().to(torch.uint8) for half in halves]
    gap = torch.full((*halves[0].shape[:-1], GAP), 128, dtype=torch.uint8)
    return Clip(torch.cat([halves[0], gap, halves[1]], dim=-1), fps)


def as_videos(
    base: Tensor, aligned: Tensor, places: Sequence[int], fps: float, budget: int = BUDGET
) -> tuple[list[str], int]:
    """The pairs at ``places`` as data URIs of MP4 files, and the factor by which they were made smaller.

    All pairs get one size: the largest whole fraction at which a side is at most `LARGEST_SIDE` px and the
    files together at most ``budget`` bytes.

    Args:
        base: uint8 (N, T, 3, H, W).
        aligned: the same shape.
        places: which of the N.
        fps: frames per second.
        budget: in bytes, before base64.
    """
    height, width = base.shape[-2:]
    shrink = max(1, math.ceil(max(height, width) / LARGEST_SIDE))
    while True:
        files = [_encoded(beside(base[place], aligned[place], fps, shrink)) for place in places]
        if sum(map(len, files)) <= budget or min(height, width) // (2 * shrink) < 16:
            return [f"data:video/mp4;base64,{base64.b64encode(file).decode()}" for file in files], shrink
        shrink *= 2


def _encoded(clip: Clip) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        write_video(clip, file, crf=CRF, scale=1)
        return file.read_bytes()
