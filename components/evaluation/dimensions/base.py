"""What a dimension is, and what it is given to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from multiprocessing import get_context
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from components.corpus.world.detect import Reading, read_back
from components.corpus.world.scene import Scene, parse_caption
from components.runtime.devices import available_cpus
from components.video.flow import optical_flow

Array = NDArray[np.float64]
R = TypeVar("R")

#: Share of a frame's pixels, the fastest, that stand for its motion (as in VBench's dynamic degree).
FASTEST_SHARE = 0.05
#: Larger frames are reduced to this short side (px) before a classical flow: it would take minutes a clip.
FLOW_SIDE = 128
#: Below this many clips, starting worker processes costs more than it saves.
WORTH_WORKERS = 64


@contextmanager
def workers(clips: int) -> Iterator[Executor | None]:
    """A pool of one process per core for the flow of many clips, or None when a pool would not pay."""
    cores = available_cpus()
    if clips < WORTH_WORKERS or cores < 2:
        yield None
        return
    # Spawned, not forked: a fork after torch has started its threads may hang.
    with ProcessPoolExecutor(
        min(cores, 8), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield pool


@dataclass
class Clips:
    """The videos of one model, with what several dimensions read from them worked out once.

    Attributes:
        frames: uint8 (N, T, 3, H, W).
        fps: frames per second.
        prompts: the N texts they were sampled for.
        pool: worker processes for slow measurements; None: this process.
        flow_on: bool (N,), the clips on which optical flow is worth its time; None: all of them.
    """

    frames: Tensor
    fps: float
    prompts: tuple[str, ...]
    pool: Executor | None = None
    flow_on: NDArray[np.bool_] | None = None
    scenes: tuple[Scene | None, ...] = field(init=False)

    def __post_init__(self) -> None:
        if (
            self.frames.dim() != 5
            or self.frames.dtype != torch.uint8
            or len(self.frames) != len(self.prompts)
        ):
            raise ValueError(
                f"expected uint8 (N, T, 3, H, W) for {len(self.prompts)} prompts, "
                f"got {self.frames.dtype} {tuple(self.frames.shape)}"
            )
        self.scenes = tuple(parse_caption(prompt) for prompt in self.prompts)

    @property
    def has_world(self) -> bool:
        """Whether any prompt describes a scene of the miniature world."""
        return any(scene is not None for scene in self.scenes)

    def each_by_flow(self, function: Callable[[NDArray[np.uint8]], R], stride: int = 1) -> list[R | None]:
        """``function`` of each clip's every ``stride``-th frame, (T, 3, H, W); None outside ``flow_on``."""
        wanted = np.ones(len(self.frames), dtype=bool) if self.flow_on is None else self.flow_on
        arrays = [self.frames[place, ::stride].numpy() for place in np.flatnonzero(wanted)]
        results = iter(
            map(function, arrays) if self.pool is None else self.pool.map(function, arrays, chunksize=4)
        )
        return [next(results) if measured else None for measured in wanted]

    @cached_property
    def readings(self) -> tuple[Reading | None, ...]:
        """The scene read back from each clip; None where the prompt is not of the miniature world."""
        return tuple(
            read_back(clip) if scene is not None else None
            for clip, scene in zip(self.frames, self.scenes, strict=True)
        )

    @cached_property
    def fastest_motion(self) -> list[list[float] | None]:
        """Per clip, px per step: mean flow of the fastest 5 % of pixels, frames about 1/8 s apart."""
        return self.each_by_flow(fastest_motion, max(1, round(self.fps / 8)))


@dataclass(frozen=True)
class Dimension:
    """One registered measurement.

    Attributes:
        name: VBench's name where the definition is VBench's or its analogue, else a name of our own.
        group: ``quality`` (VBench's seven) or ``semantic`` (does the clip show what the prompt says).
        definition: what is computed, in one line; for a reader of the report.
        needs: ``pixels``, ``world`` (prompts of the miniature world) or ``weights`` (not shipped).
        method: empty when the figure is what VBench itself would print, else what replaced its model.
        provider: what would make it available where it is not.
        measure: clips -> (N,) scores, higher is better, NaN where it does not apply; None when weights are
            needed.
    """

    name: str
    group: Literal["quality", "semantic"]
    definition: str
    needs: Literal["pixels", "world", "weights"]
    method: str = ""
    provider: str = ""
    measure: Callable[[Clips], Array] | None = None

    def unavailable(self, clips: Clips) -> str | None:
        """Why this cannot be measured on these clips, or None when it can."""
        if self.measure is None:
            return f"needs the weights of {self.provider}, which are not part of this installation"
        if self.needs == "world" and not clips.has_world:
            return "no prompt of the run describes a scene of the miniature world"
        if clips.frames.shape[1] < 3:
            return f"clips of {clips.frames.shape[1]} frames are too short to measure motion"
        return None


def reduced(frames: Tensor) -> tuple[Tensor, float]:
    """Float frames in 0..1, short side at most ``FLOW_SIDE`` px, and the factor they were reduced by."""
    small = frames.float() / 255.0
    factor = min(frames.shape[-2:]) / FLOW_SIDE
    if factor <= 1:
        return small, 1.0
    size = (round(frames.shape[-2] / factor), round(frames.shape[-1] / factor))
    return F.interpolate(small, size, mode="bilinear", antialias=True, align_corners=False), factor


def fastest_motion(clip: NDArray[np.uint8]) -> list[float]:
    """Mean flow length of the fastest 5 % of pixels for each pair of neighbouring frames.

    Args:
        clip: (T, 3, H, W), T >= 2.

    Returns:
        T - 1 figures in pixels per frame. A pair of identical frames is 0 without estimating a flow.
    """
    frames, factor = reduced(torch.from_numpy(clip))
    lengths = []
    for before, after in pairwise(frames):
        if torch.equal(before, after):
            lengths.append(0.0)
            continue
        length = torch.linalg.vector_norm(optical_flow(before, after), dim=0).flatten()
        lengths.append(factor * float(length.topk(max(1, int(len(length) * FASTEST_SHARE))).values.mean()))
    return lengths
