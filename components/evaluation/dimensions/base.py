"""What a dimension is, and what it is given to measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.corpus.world.detect import Reading, read_back
from components.corpus.world.scene import Scene, parse_caption
from components.evaluation.dimensions.classical_flow import fastest_motion, smoothness
from components.evaluation.models import WEIGHTS, Shelf
from components.evaluation.models.catalogue import UNKNOWN
from components.runtime.compute.process_pool import ProcessPool
from components.video.decode.frames import Frames, held

Array = NDArray[np.float64]

#: What is worth working out on worker processes, by the property of `Video` that holds it.
_POOLED: dict[str, Callable[[Any], Any]] = {
    "flow_lengths": fastest_motion,
    "classical_smoothness": smoothness,
}


@dataclass(eq=False)
class Video:
    """One video with what is known about it; what several dimensions read from it is worked out once.

    Attributes:
        frames: uint8 (T, 3, H, W); of a long video decoded anew whenever they are gone through.
        fps: frames per second that the model sampled at, where that is known; else the container's.
        prompt: the text it was sampled for.
        facts: by dimension that the prompt was written for, what a suite says about it (VBench's
        auxiliary_info), {} where it says nothing more.
        name: its file name, where it comes from a file.
        container_fps: frames per second that its file declares; `fps` where there is no file.
        flow: whether a classical flow, which is slow, is worth its time here.
    """

    frames: Frames
    fps: float
    prompt: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    container_fps: float | None = None
    flow: bool = True

    @cached_property
    def scene(self) -> Scene | None:
        """The scene of the miniature world that the prompt describes, None when it is another prompt."""
        return parse_caption(self.prompt)

    @cached_property
    def reading(self) -> Reading | None:
        """The scene read back from the frames; None where the prompt is not of the miniature world."""
        return None if self.scene is None else read_back(held(self.frames))

    @property
    def stride(self) -> int:
        """Every how manyeth frame is about 1/8 s from the one before."""
        return eighths(self.fps)

    @cached_property
    def flow_lengths(self) -> list[float] | None:
        """Px per step: mean classical flow of the fastest 5 % of pixels, frames about 1/8 s apart."""
        return fastest_motion(self.frames[:: self.stride]) if self.flow else None

    @cached_property
    def classical_smoothness(self) -> float | None:
        """Motion smoothness with a classical flow; None where none is wanted."""
        return smoothness(self.frames) if self.flow else None


def eighths(fps: float) -> int:
    """The step in frames that is nearest to 1/8 s, at least 1."""
    return max(1, round(fps / 8))


def innermost(fact: Any, key: str) -> Any:
    """What a suite says under ``key``, however often it is nested in itself (VBench's file does that)."""
    while isinstance(fact, Mapping) and key in fact:
        fact = fact[key]
    return fact


@dataclass(frozen=True)
class Outcome:
    """One video's result.

    Attributes:
        value: higher is better, 0..1 unless the definition says otherwise.
        weight: what it counts in the score over all videos: 1, or its frames where frames are averaged.
        details: what else goes into the result file, under VBench's names; plain JSON values.
    """

    value: float
    weight: float = 1.0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """Why a definition leaves a video out: it is not a score of 0, and not an error."""

    reason: str


@dataclass(frozen=True)
class Measured:
    """An outcome and the video it is of."""

    name: str
    prompt: str
    outcome: Outcome


#: One video, opened models -> its outcome.
Scorer = Callable[[Video, Shelf], Outcome | LeftOut]


@dataclass(frozen=True)
class Dimension:
    """One registered measurement.

    Attributes:
        name: VBench's name where the definition is VBench's or its analogue, else a name of our own.
        group: ``quality`` (VBench's seven) or ``semantic`` (does the clip show what the prompt says).
        definition: what is computed, in one line; for a reader of the report.
        needs: ``pixels``, ``world`` (prompts of the miniature world) or ``weights`` (not shipped).
        score: the measurement.
        models: the weights it opens, by name in the catalogue.
        fact: the entry of `Video.facts` without which it says nothing about a video; "" for none.
        method: empty when the figure comes from the models VBench uses, else what replaced them.
        variant: how the figure differs from the published one by choice; "" where it does not.
        compat: the published variant, where there is a difference.
        keep: which measured videos count in the published variant; None for all.
        compat_models: the weights that only the published variant opens.
        pooled: the property of `Video` that is worth working out on worker processes.
        shortest: fewest frames of a video that it says anything about.
    """

    name: str
    group: Literal["quality", "semantic"]
    definition: str
    needs: Literal["pixels", "world", "weights"]
    score: Scorer
    models: tuple[str, ...] = ()
    fact: str = ""
    method: str = ""
    variant: str = ""
    compat: Scorer | None = None
    keep: Callable[[Sequence[Measured]], list[Measured]] | None = None
    compat_models: tuple[str, ...] = ()
    pooled: str = ""
    shortest: int = 1

    def opens(self, compat: bool = False) -> tuple[str, ...]:
        """The weights it opens."""
        return self.models + (self.compat_models if compat else ())

    def measured_by(self, origins: Mapping[str, str]) -> str:
        """What replaced VBench's models, in words: by the catalogue, or by weights that came from elsewhere.

        Args:
            origins: by name of the weights in use, where they come from (`Shelf.origin`).
        """
        other = [
            f"{WEIGHTS[name].title} replaced by {origin}"
            for name, origin in origins.items()
            if origin not in (WEIGHTS[name].origin, UNKNOWN)
        ]
        return "; ".join([self.method] * bool(self.method) + other)

    def missing(self, shelf: Shelf, compat: bool = False) -> str | None:
        """Which weights are missing and what would help; None when they are all there."""
        reasons = [reason for name in self.opens(compat) if (reason := shelf.missing(name)) is not None]
        if not reasons:
            return None
        replaced = [WEIGHTS[name].instead_of for name in self.opens(compat) if WEIGHTS[name].instead_of]
        return "; ".join(reasons) + (f" (in place of VBench's {', '.join(replaced)})" if replaced else "")

    def says_nothing(self, video: Video) -> str | None:
        """Why this has nothing to say about a video, None when it has."""
        if self.needs == "world" and video.scene is None:
            return "the prompt does not describe a scene of the miniature world"
        if self.fact and self.fact not in video.facts:
            return f"nothing is known about the prompt that {self.name} could look for"
        if len(video.frames) < self.shortest:
            return f"too short: {len(video.frames)} frames, of {self.shortest} that are needed"
        return None

    def unavailable(self, clips: Clips, shelf: Shelf, compat: bool = False) -> str | None:
        """Why this cannot be measured on these clips, or None when it can."""
        if (reason := self.missing(shelf, compat)) is not None:
            return reason
        if clips.frames.shape[1] < self.shortest:
            return f"clips of {clips.frames.shape[1]} frames are too short, {self.shortest} are needed"
        if self.needs == "world" and not clips.has_world:
            return "no prompt of the run describes a scene of the miniature world"
        if all(self.says_nothing(video) for video in clips.videos):
            return "no prompt of the run says what to look for, as those of VBench's suite do"
        return None

    def of(self, video: Video, shelf: Shelf, compat: bool = False) -> Outcome | LeftOut:
        """The outcome of one video in the wanted variant."""
        if (reason := self.says_nothing(video)) is not None:
            return LeftOut(reason)
        scorer = self.compat if compat and self.compat is not None else self.score
        return scorer(video, shelf)

    def measure(self, clips: Clips, shelf: Shelf, compat: bool = False) -> Array:
        """(N,) values, NaN where it says nothing about a clip or, as published, does not count it."""
        if self.pooled:
            clips.work_out(self.pooled)
        found = {place: self.of(video, shelf, compat) for place, video in enumerate(clips.videos)}
        rows = [
            Measured(f"{place:09d}", clips.prompts[place], one)
            for place, one in found.items()
            if isinstance(one, Outcome)
        ]
        values = np.full(len(found), np.nan)
        for row in self.total(rows, compat)[1]:
            values[int(row.name)] = row.outcome.value
        return values

    def total(self, measured: Sequence[Measured], compat: bool = False) -> tuple[float, list[Measured]]:
        """The score over videos, each by its weight, and the videos that count in it; NaN without any."""
        counted = self.keep(measured) if compat and self.keep is not None else list(measured)
        weight = sum(one.outcome.weight for one in counted)
        if not weight:
            return float("nan"), counted
        return sum(one.outcome.weight * one.outcome.value for one in counted) / weight, counted


@dataclass
class Clips:
    """The videos of one model in memory, all of one size.

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
    pool: ProcessPool | None = None
    flow_on: NDArray[np.bool_] | None = None
    videos: tuple[Video, ...] = field(init=False)

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
        wanted = np.ones(len(self.frames), dtype=bool) if self.flow_on is None else self.flow_on
        self.videos = tuple(
            Video(frames, self.fps, prompt, flow=bool(flow))
            for frames, prompt, flow in zip(self.frames, self.prompts, wanted, strict=True)
        )

    @property
    def has_world(self) -> bool:
        """Whether any prompt describes a scene of the miniature world."""
        return any(video.scene is not None for video in self.videos)

    def work_out(self, what: str) -> None:
        """Fill a property of every video on the worker processes, where there are any and it is not known.

        Raises:
            InputError: a worker died.
            Interrupted: a stop was asked for.
        """
        waiting = [video for video in self.videos if video.flow and what not in vars(video)]
        if self.pool is None or not waiting:
            return
        strides = [video.stride if what == "flow_lengths" else 1 for video in waiting]
        arrays = [
            held(video.frames[::stride]).numpy() for video, stride in zip(waiting, strides, strict=True)
        ]
        with self.pool.stop:
            for video, value in zip(waiting, self.pool.map(_POOLED[what], arrays), strict=True):
                vars(video)[what] = value  # where cached_property keeps what it worked out
