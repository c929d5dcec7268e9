"""The frames of a video of any length: held in memory while they are few, else decoded again at each look."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.video.codec import refuse_large, rgb_frames, stacked, timed
from components.video.decode.colour import Pixels
from components.video.decode.container import info_of, opened

HELD_PIXELS = 64_000_000  # 192 MB of RGB bytes: ten seconds of 480 x 480
MAX_STREAMED_PIXELS = 20_000_000_000  # 1080p at 24 per second for nearly seven minutes


class StreamedFrames:
    """A video file as a sequence of uint8 (3, H, W) frames; memory holds only those that are looked at.

    It stands in for a tensor (T, 3, H, W) where that is gone through in order: `len`, `shape`, iteration,
    `split`, an index, a list of indices (a tensor comes out) and a slice with a positive step (lazy again).
    Each of them decodes the file from its beginning; the file must not change meanwhile.
    """

    def __init__(self, path: Path, chosen: NDArray[np.int64], size: tuple[int, int]) -> None:
        self._path, self._chosen, self._size = path, chosen, size

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def shape(self) -> torch.Size:
        """(T, 3, H, W)."""
        return torch.Size((len(self), 3, *self._size))

    def __iter__(self) -> Iterator[Tensor]:
        place, wanted = 0, frozenset(self._chosen.tolist())
        with opened(self._path) as (container, stream):
            found = rgb_frames(self._path, container, stream, wanted=wanted.__contains__)
            for number, (_, pixels) in enumerate(found):
                if pixels is None:
                    continue
                frame = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
                while place < len(self) and self._chosen[place] == number:
                    yield frame
                    place += 1
                if place == len(self):
                    return

    def split(self, number: int) -> Iterator[Tensor]:
        """uint8 (n, 3, H, W) parts of `number` frames, the last one what is left."""
        part: list[Tensor] = []
        for frame in self:
            part.append(frame)
            if len(part) == number:
                yield torch.stack(part)
                part = []
        if part:
            yield torch.stack(part)

    @overload
    def __getitem__(self, place: int | Sequence[int]) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> StreamedFrames: ...
    def __getitem__(self, place: int | Sequence[int] | slice) -> Tensor | StreamedFrames:
        if isinstance(place, slice):
            if (place.step or 1) < 1:
                raise ValueError(f"frames are decoded forwards, got a step of {place.step}")
            return StreamedFrames(self._path, self._chosen[place], self._size)
        if isinstance(place, int):
            return self[[place]][0]
        wanted = self._chosen[list(place)]
        order, back = np.unique(wanted, return_inverse=True)
        return torch.stack(list(StreamedFrames(self._path, order, self._size)))[torch.from_numpy(back)]


Frames = Tensor | StreamedFrames
"""uint8 (T, 3, H, W), gone through in order."""


def open_frames(path: str | Path, held_pixels: int = HELD_PIXELS) -> tuple[Frames, float]:
    """A file's frames and its constant rate; decoded once to the end, so that it is known to be whole.

    Args:
        path: a local file.
        held_pixels: a video of at most so many T x H x W comes as a tensor.

    Raises:
        InputError: as `read_video`.
    """
    kept: list[Pixels] = []
    times: list[float | None] = []
    shape: tuple[int, ...] = ()

    def few(frames: int) -> bool:
        return frames * math.prod(shape[:2]) <= held_pixels

    with opened(path) as (container, stream):
        info, form = info_of(path, stream), container.format.name
        hopeless = (info.frames or 0) * info.width * info.height > held_pixels
        # The pixels of those frames alone that may yet be kept; the first one's tell the size as shown.
        wanted = rgb_frames(
            path, container, stream, wanted=lambda number: not number or (not hopeless and few(number + 1))
        )
        for time, pixels in wanted:
            times.append(time)
            if pixels is not None:
                kept.append(pixels)
                shape = pixels.shape
            if hopeless or not few(len(times)):
                kept.clear()
            refuse_large(path, len(times), shape, MAX_STREAMED_PIXELS)
    timing = timed(path, times, info.fps, form)
    length = timing.length(len(times))
    refuse_large(path, length, shape, MAX_STREAMED_PIXELS)
    shown = timing.shown(len(times))
    if kept and few(length):
        return stacked(kept, shown), timing.fps
    return StreamedFrames(Path(path), shown, (shape[0], shape[1])), timing.fps


def held(frames: Frames) -> Tensor:
    """All of them as one tensor."""
    return frames if isinstance(frames, Tensor) else torch.stack(list(frames))
