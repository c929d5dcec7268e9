"""The frames of a video of any length: held in memory while they are few, else decoded again at each look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.runtime.errors import InputError
from components.video.decode.colour import Pixels, RgbReader
from components.video.decode.container import decoded, info_of, opened
from components.video.decode.timing import timing_of

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
            numbered = rgb_frames(self._path, container, stream, wanted=wanted.__contains__)
            for number, (_, pixels) in enumerate(numbered):
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


#: uint8 (T, 3, H, W), gone through in order.
Frames = Tensor | StreamedFrames


def open_frames(
    path: str | Path,
    held_pixels: float = HELD_PIXELS,
    max_pixels: int = MAX_STREAMED_PIXELS,
    max_frames: int | None = None,
    short_side: int | None = None,
) -> tuple[Frames, float]:
    """A file's frames and its constant rate; decoded once to the end, so that it is known to be whole.

    Args:
        path: a local file.
        held_pixels: a video of at most so many T x H x W comes as a tensor.
        max_pixels: largest allowed T x H x W.
        max_frames: as in `read_video`, where all frames are held.
        short_side: the same.

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
        decoded_frames = rgb_frames(
            path,
            container,
            stream,
            short_side,
            wanted=lambda number: not number or (not hopeless and few(number + 1)),
        )
        for time, pixels in decoded_frames:
            times.append(time)
            if pixels is not None:
                kept.append(pixels)
                shape = pixels.shape
            if hopeless or not few(len(times)):
                kept.clear()
            _refuse_large(path, len(times), shape, max_pixels)
            if len(times) == max_frames:
                break
    if not times:
        raise InputError(f"{path}: no video frames")
    timing = timing_of(times, info.fps, form)
    if timing is None:
        raise InputError(f"{path}: neither time stamps nor a frame rate in the file")
    length = min(timing.length(len(times)), max_frames or MAX_STREAMED_PIXELS)
    _refuse_large(path, length, shape, max_pixels)
    shown = timing.shown(len(times), length)
    if kept and few(length):
        return _stacked(kept, shown), timing.fps
    return StreamedFrames(Path(path), shown, (shape[0], shape[1])), timing.fps


def held(frames: Frames) -> Tensor:
    """All of them as one tensor."""
    return frames if isinstance(frames, Tensor) else torch.stack(list(frames))


def rgb_frames(
    path: str | Path,
    container: Any,
    stream: Any,
    short_side: int | None = None,
    wanted: Callable[[int], bool] = lambda number: True,
) -> Iterator[tuple[float | None, Pixels | None]]:
    """Each shown frame's time in seconds and its pixels, uint8 (h, w, 3), all of the first one's size.

    Args:
        path: of the opened file, for messages.
        container: as `opened` gives it.
        stream: as `opened` gives it.
        short_side: as in `read_video`.
        wanted: by a frame's number, whether its pixels are; None comes instead of the others.

    Raises:
        InputError: truncated, damaged, or in colours that cannot be read.
    """
    reader = RgbReader()
    size: tuple[int, int] | None = None
    for number, frame in enumerate(decoded(path, container, stream)):
        # A stream may change its size on the way; the first frame's size holds for all.
        size = size or _scaled_size(frame.height, frame.width, short_side)
        try:
            yield frame.time, reader.pixels(frame, size) if wanted(number) else None
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def _refuse_large(path: str | Path, frames: int, shape: tuple[int, ...], max_pixels: int) -> None:
    """Raise an InputError for more than `max_pixels` over so many frames of (h, w, 3)."""
    height, width = shape[:2]
    if frames * height * width > max_pixels:
        raise InputError(
            f"{path}: too large, more than {max_pixels:,} pixels over all frames "
            f"({width} x {height}, {frames} frames or more)"
        )


def _stacked(frames: list[Pixels], shown: NDArray[np.int64]) -> Tensor:
    """uint8 (T, 3, h, w) of the frames' numbers in order; empties the list, lest memory hold two copies."""
    height, width, _ = frames[0].shape
    whole = torch.empty((len(shown), 3, height, width), dtype=torch.uint8)
    steps = np.searchsorted(shown, np.arange(len(frames) + 1)).tolist()
    for number in reversed(range(len(frames))):
        whole[steps[number] : steps[number + 1]] = torch.from_numpy(frames.pop()).permute(2, 0, 1)
    return whole


def _scaled_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    shorter = min(height, width)
    if short_side is None or shorter <= short_side:
        return height, width
    return round(height * short_side / shorter), round(width * short_side / shorter)
