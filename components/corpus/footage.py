"""Clips from real footage: draws of time and place in a video, or of a camera's path over a photograph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.corpus.camera import draw_move, film
from components.corpus.dataset import ClipRecord, RecordedClip
from components.corpus.packaged import PACKAGED, PackagedFile
from components.corpus.params import CorpusParams
from components.corpus.world.splits import ClipSplit
from components.runtime.compute.seeds import numpy_rng
from components.runtime.errors import InputError
from components.video.clip import Clip
from components.video.codec import read_video
from components.video.decode.container import probe
from components.video.filters import luma, to_float
from components.video.resample import crop, resample_fps, resize, window
from components.video.shots import shots

TRIES = 16  # draws before a content's next clip is given up
READ_SECONDS = 30.0  # of a user's video, from its beginning
READ_FRAMES = 1800
READ_SCALE = 4  # videos are read with a shorter side of this many times the clip's
MIN_CROP_SCALE = 1.25  # source pixels per clip pixel: shrinking a little hides the source's own compression
VIDEO_WEIGHT = 2.0  # shares of a split's clips, per second of a video ...
PHOTO_WEIGHT = 3.0  # ... and per photograph

# A draw is kept when it has something to see, in focus, and something that moves.
MIN_DETAIL = 0.06  # standard deviation of luma, of 1
MIN_SHARPNESS = 0.012  # mean absolute luma difference of neighbours, of 1: out of focus is not pristine
MIN_MOTION = 1.5 / 255  # mean absolute change of luma per frame, of 1

Draw = Callable[[np.random.Generator], Tensor | None]


@dataclass(frozen=True)
class FootageSource:
    """One content: everything drawn from it belongs to one split."""

    content: str
    split: ClipSplit
    weight: float
    draw: Draw


@dataclass(frozen=True)
class FootageReport:
    """What became of one file, as recorded beside the clips."""

    name: str
    origin: str
    split: str | None
    clips: int
    reason: str | None


def packaged_sources(params: CorpusParams) -> Iterator[FootageSource | FootageReport]:
    """Each packaged file as a source of clips, or as a report that says why it is none."""
    for item in PACKAGED:
        file = item.locate()
        if file is None:
            reason = f"{item.path} not found: package {item.package} is not installed or ships without it"
            yield FootageReport(item.name, item.package, None, 0, reason)
            continue
        try:
            yield _packaged_source(item, file, params)
        except InputError as error:
            yield FootageReport(item.name, item.package, None, 0, str(error))


def share(weights: Sequence[float], total: int) -> list[int]:
    """Divide `total` clips in proportion to the weights, by largest remainder."""
    if not weights:
        return []
    exact = np.asarray(weights, dtype=float) / sum(weights) * total
    counts = np.floor(exact).astype(int)
    for index in np.argsort(-(exact - counts), kind="stable")[: total - int(counts.sum())]:
        counts[index] += 1
    return [int(count) for count in counts]


def draw_clips(source: FootageSource, count: int, seed: int) -> list[Tensor]:
    """Up to `count` uint8 (T, 3, H, W) clips of one content, each drawn from a seed named after it alone."""
    clips: list[Tensor] = []
    for index in range(count):
        rng = numpy_rng(seed, "corpus", "footage", source.content, index)
        for _ in range(TRIES):
            frames = source.draw(rng)
            if frames is not None and why_dropped(frames) is None:
                clips.append(frames)
                break
    return clips


def footage_records(content: str, split: str, clips: Sequence[Tensor]) -> list[RecordedClip]:
    """The clips of one content, numbered."""
    return [
        (ClipRecord(f"{content}/{index}", "footage", content, split, None), frames)
        for index, frames in enumerate(clips)
    ]


def detail(frames: Tensor) -> float:
    """Standard deviation of luma over space, mean over frames, of 1. Frames (T, 3, H, W) uint8."""
    return float(luma(to_float(frames)).flatten(1).std(dim=1).mean())


def sharpness(frames: Tensor) -> float:
    """Mean absolute luma difference of neighbouring pixels, of 1. Frames (T, 3, H, W) uint8."""
    light = luma(to_float(frames))
    return float((light.diff(dim=-1).abs().mean() + light.diff(dim=-2).abs().mean()) / 2)


def changes(frames: Tensor) -> Tensor:
    """(T-1,) mean absolute change of luma from frame to frame, of 1. Frames (T, 3, H, W) uint8."""
    return luma(to_float(frames)).diff(dim=0).abs().flatten(1).mean(dim=1)


def why_dropped(frames: Tensor) -> str | None:
    """Why a draw is no good clip, or None when it is one."""
    if detail(frames) < MIN_DETAIL:
        return "nearly uniform"
    if sharpness(frames) < MIN_SHARPNESS:
        return "out of focus"
    if float(changes(frames).median()) < MIN_MOTION:
        return "nothing moves"
    return None


def load_photo(file: Path) -> Tensor:
    """A photograph as (3, H, W) float32 in 0..1; grey ones get three equal channels."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    except OSError as error:  # UnidentifiedImageError is one
        raise InputError(f"{file}: not a readable picture ({error})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_footage(file: Path, params: CorpusParams) -> list[Clip]:
    """The shots of a video's first half minute that are long enough for a clip, at the corpus's frame rate.

    Their shorter side is at most four times the clip's, so that a long video of large frames fits in memory.

    Raises:
        InputError: unreadable, or too slow, too short or too small for one clip.
    """
    rate = probe(file).fps or 30.0
    frames = min(READ_FRAMES, math.ceil(rate * READ_SECONDS))
    video = read_video(file, max_frames=frames, short_side=READ_SCALE * min(params.height, params.width))
    if video.fps < params.fps * 0.99:
        raise InputError(f"{file}: {video.fps:.3g} frames per second, clips have {params.fps:g}")
    if video.height < params.height or video.width < params.width:
        raise InputError(
            f"{file}: {video.width} x {video.height} pixels, a clip needs {params.width} x {params.height}"
        )
    kept = [resample_fps(shot, params.fps) for shot in shots(video)]
    kept = [shot for shot in kept if shot.num_frames >= params.frames]
    if not kept:
        needed = f"{params.frames} frames at {params.fps:g} per second"
        raise InputError(f"{file}: {video.seconds:.2f} s without a shot of the {needed} that a clip needs")
    return kept


def video_draw(pieces: Sequence[Clip], params: CorpusParams) -> Draw:
    """Draws of a rectangle and a moment; every moment of every shot is equally likely."""
    starts = [shot.num_frames - params.frames + 1 for shot in pieces]
    largest = min(pieces[0].height / params.height, pieces[0].width / params.width)
    smallest = min(MIN_CROP_SCALE, largest)

    def draw(rng: np.random.Generator) -> Tensor | None:
        start, index = int(rng.integers(sum(starts))), 0
        while start >= starts[index]:
            start, index = start - starts[index], index + 1
        shot = pieces[index]
        scale = math.exp(float(rng.uniform(math.log(smallest), math.log(largest))))
        height = min(round(params.height * scale), shot.height)
        width = min(round(params.width * scale), shot.width)
        top = int(rng.integers(0, shot.height - height + 1))
        left = int(rng.integers(0, shot.width - width + 1))
        cut = crop(window(shot, start, params.frames), top, left, height, width)
        return resize(cut, (params.height, params.width)).frames

    return draw


def photo_draw(photo: Tensor, params: CorpusParams) -> Draw:
    """Draws of a camera's path over a photograph, (3, H, W) float32 in 0..1."""
    size = (params.height, params.width)

    def draw(rng: np.random.Generator) -> Tensor | None:
        move = draw_move(rng, (photo.shape[1], photo.shape[2]), size, params.frames)
        return None if move is None else film(photo, move, size, params.frames)

    return draw


def _packaged_source(item: PackagedFile, file: Path, params: CorpusParams) -> FootageSource:
    if item.is_video:
        pieces = read_footage(file, params)
        weight = VIDEO_WEIGHT * sum(shot.seconds for shot in pieces)
        return FootageSource(f"video/{item.name}", item.split, weight, video_draw(pieces, params))
    return FootageSource(f"photo/{item.name}", item.split, PHOTO_WEIGHT, photo_draw(load_photo(file), params))
