"""What a dimension is, and the videos it is given to measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.corpus.world.detect import ObjectReading, read_back
from components.corpus.world.scene import Scene, parse_caption
from components.evaluation.dimensions.classical_flow import fastest_motion, smoothness
from components.evaluation.dimensions.names import QUALITY
from components.evaluation.models import WEIGHTS, ModelStore
from components.evaluation.models.catalogue import UNKNOWN
from components.runtime.compute.process_pool import ProcessPool
from components.video.decode.frames import Frames, held

Array = NDArray[np.float64]

#: What is worth computing in worker processes, by the property of `Video` that holds it.
_POOLED: dict[str, Callable[[Any], Any]] = {
    "flow_lengths": fastest_motion,
    "classical_smoothness": smoothness,
}


@dataclass(eq=False)
class Video:
    """One video with what is known about it; what several dimensions read from it is computed once.

    Attributes:
        frames: uint8 (T, 3, H, W); a long video is decoded anew for each pass over them.
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

    def fact(self, dimension: str, key: str = "") -> Any:
        """What the suite says for a dimension under ``key`` (the dimension's name by default).

        VBench's file nests some of them in themselves; the innermost value counts.
        """
        value, key = self.facts[dimension], key or dimension
        while isinstance(value, Mapping) and key in value:
            value = value[key]
        return value

    @cached_property
    def scene(self) -> Scene | None:
        """The scene of the miniature world that the prompt describes, None when it is another prompt."""
        return parse_caption(self.prompt)

    @cached_property
    def reading(self) -> ObjectReading | None:
        """The scene read back from the frames; None where the prompt is not of the miniature world."""
        return None if self.scene is None else read_back(held(self.frames))

    @property
    def stride(self) -> int:
        """Frame stride closest to 1/8 s."""
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
    """The frame stride closest to 1/8 s, at least 1."""
    return max(1, round(fps / 8))


@dataclass(frozen=True)
class VideoScore:
    """One video's score.

    Attributes:
        value: higher is better, 0..1 unless the definition says otherwise.
        weight: what it counts in the score over all videos: 1, or its frames where frames are averaged.
        details: what else goes into the result file, under VBench's names; plain JSON values.
    """

    value: float
    weight: float = 1.0
    details: Mapping[str, Any] = field(default_factory=dict)


def share_of_frames(right: Sequence[bool]) -> VideoScore:
    """The share of frames that are right, weighted by their number, with VBench's details."""
    counts = {"success_frame_count": sum(right), "frame_count": len(right)}
    return VideoScore(sum(right) / len(right), len(right), counts)


@dataclass(frozen=True)
class LeftOut:
    """Why a definition leaves a video out: it is not a score of 0, and not an error."""

    reason: str


@dataclass(frozen=True)
class ScoredVideo:
    """A score and the video it is of."""

    name: str
    prompt: str
    score: VideoScore


#: One video, opened models -> its score.
ScoreFunction = Callable[[Video, ModelStore], VideoScore | LeftOut]


@dataclass(frozen=True)
class Dimension:
    """One registered measurement.

    Attributes:
        name: VBench's name where the definition is VBench's or its analogue, else a name of our own.
        definition: what is computed, in one line; for a reader of the report.
        score: the measurement.
        models: the weights it opens, by name in the catalogue.
        world: whether it measures only prompts of the miniature world.
        fact: the entry of `Video.facts` that it needs; "" for none.
        method: empty when the figure comes from the models VBench uses, else what replaced them.
        variant: how the figure differs from the published one by choice; "" where it does not.
        compat: the published variant, where there is a difference.
        keep: which measured videos count in the published variant; None for all.
        compat_models: the weights that only the published variant opens.
        pooled: the property of `Video` that is worth computing in worker processes.
        shortest: fewest frames of a video that it can measure.
    """

    name: str
    definition: str
    score: ScoreFunction
    models: tuple[str, ...] = ()
    world: bool = False
    fact: str = ""
    method: str = ""
    variant: str = ""
    compat: ScoreFunction | None = None
    keep: Callable[[Sequence[ScoredVideo]], list[ScoredVideo]] | None = None
    compat_models: tuple[str, ...] = ()
    pooled: str = ""
    shortest: int = 1

    @property
    def group(self) -> Literal["quality", "semantic"]:
        """``quality`` (VBench's seven) or ``semantic`` (does the clip show what the prompt says)."""
        return "quality" if self.name in QUALITY else "semantic"

    @property
    def needs(self) -> Literal["pixels", "world", "weights"]:
        """``weights`` (not shipped), ``world`` (prompts of the miniature world) or nothing but ``pixels``."""
        return "weights" if self.models else "world" if self.world else "pixels"

    def opens(self, compat: bool = False) -> tuple[str, ...]:
        """The weights it opens."""
        return self.models + (self.compat_models if compat else ())

    def measured_by(self, origins: Mapping[str, str]) -> str:
        """What replaced VBench's models, in words: by the catalogue, or by weights that came from elsewhere.

        Args:
            origins: by name of the weights in use, where they come from (`ModelStore.origin`).
        """
        other = [
            f"{WEIGHTS[name].title} replaced by {origin}"
            for name, origin in origins.items()
            if origin not in (WEIGHTS[name].origin, UNKNOWN)
        ]
        return "; ".join([self.method] * bool(self.method) + other)

    def missing(self, store: ModelStore, compat: bool = False) -> str | None:
        """Which weights are missing and what would help; None when they are all there."""
        reasons = [reason for name in self.opens(compat) if (reason := store.missing(name)) is not None]
        if not reasons:
            return None
        replaced = [WEIGHTS[name].instead_of for name in self.opens(compat) if WEIGHTS[name].instead_of]
        return "; ".join(reasons) + (f" (in place of VBench's {', '.join(replaced)})" if replaced else "")

    def cannot_score(self, video: Video) -> str | None:
        """Why this cannot score a video, None when it can."""
        if self.world and video.scene is None:
            return "the prompt does not describe a scene of the miniature world"
        if self.fact and self.fact not in video.facts:
            return f"nothing is known about the prompt that {self.name} could look for"
        if len(video.frames) < self.shortest:
            return f"too short: {len(video.frames)} frames, of {self.shortest} that are needed"
        return None

    def unavailable(self, videos: VideoBatch, store: ModelStore, compat: bool = False) -> str | None:
        """Why this cannot be measured on these videos, or None when it can."""
        if (reason := self.missing(store, compat)) is not None:
            return reason
        if videos.frames.shape[1] < self.shortest:
            return f"clips of {videos.frames.shape[1]} frames are too short, {self.shortest} are needed"
        if self.world and not videos.has_world:
            return "no prompt of the run describes a scene of the miniature world"
        if all(self.cannot_score(video) for video in videos.videos):
            return "no prompt of the run says what to look for, as those of VBench's suite do"
        return None

    def of(self, video: Video, store: ModelStore, compat: bool = False) -> VideoScore | LeftOut:
        """The score of one video in the wanted variant."""
        if (reason := self.cannot_score(video)) is not None:
            return LeftOut(reason)
        score = self.compat if compat and self.compat is not None else self.score
        return score(video, store)

    def measure(self, videos: VideoBatch, store: ModelStore, compat: bool = False) -> Array:
        """(N,) values, NaN where it cannot score a video or, as published, does not count it."""
        if self.pooled:
            videos.compute(self.pooled)
        scores = [self.of(video, store, compat) for video in videos.videos]
        scored = [
            ScoredVideo(f"{index:09d}", videos.prompts[index], score)
            for index, score in enumerate(scores)
            if isinstance(score, VideoScore)
        ]
        values = np.full(len(scores), np.nan)
        for counted in self.total(scored, compat)[1]:
            values[int(counted.name)] = counted.score.value
        return values

    def total(self, scored: Sequence[ScoredVideo], compat: bool = False) -> tuple[float, list[ScoredVideo]]:
        """The score over videos, each by its weight, and the videos that count in it; NaN without any."""
        counted = self.keep(scored) if compat and self.keep is not None else list(scored)
        weight = sum(one.score.weight for one in counted)
        if not weight:
            return float("nan"), counted
        return sum(one.score.weight * one.score.value for one in counted) / weight, counted


@dataclass
class VideoBatch:
    """The videos of one model in memory, all of one size.

    Attributes:
        frames: uint8 (N, T, 3, H, W).
        fps: frames per second.
        prompts: the N texts they were sampled for.
        pool: worker processes for slow measurements; None: this process.
        flow_on: bool (N,), the clips on which optical flow is worth its time; None: all of them.

    Raises:
        ValueError: frames of another type or shape, or another number of prompts.
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

    def compute(self, name: str) -> None:
        """Fill a property of every video in the worker processes, where there are any and it is not known.

        Raises:
            InputError: a worker died.
            Interrupted: a stop was asked for.
        """
        waiting = [video for video in self.videos if video.flow and name not in vars(video)]
        if self.pool is None or not waiting:
            return
        strides = [video.stride if name == "flow_lengths" else 1 for video in waiting]
        arrays = [
            held(video.frames[::stride]).numpy() for video, stride in zip(waiting, strides, strict=True)
        ]
        with self.pool.stop:
            for video, value in zip(waiting, self.pool.map(_POOLED[name], arrays), strict=True):
                vars(video)[name] = value  # where cached_property keeps what it computed
