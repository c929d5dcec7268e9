"""Reading and writing video files. A file is untrusted: probed, bounded, refused in one clear line."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.runtime.errors import InputError
from components.video.clip import Clip

# Playlists (m3u8, concat, ...) would let a file make the decoder open other files or addresses, hence a list.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,"
    "h264,hevc,ogg,flv,asf,ivf,gif,yuv4mpegpipe"
)
MAX_FRAME_PIXELS = 8192 * 4320
MAX_CLIP_PIXELS = 400_000_000  # 1.2 GB of RGB bytes
# A gap between frames further than this from the average gap (as a share of it) makes a file variable-rate.
VARIABLE_RATE_TOLERANCE = 0.25
# Declared length against decoded length: containers round, edit lists cut a frame or two.
TRUNCATION_TOLERANCE = 0.05
MIN_SIDE_WRITTEN = (
    240  # players scale a 48-pixel video up with blur, so it is enlarged with hard pixels first
)


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header says, before any frame is decoded."""

    width: int
    height: int
    fps: float | None
    frames: int | None
    seconds: float | None
    codec: str


@dataclass
class _Decoded:
    frames: list[np.ndarray[Any, Any]]
    times: list[float | None]
    complete: bool


def probe(path: str | Path) -> VideoInfo:
    """Read the header of a video file.

    Raises:
        InputError: missing, empty, not a video, without a video stream, or with frames too large.
    """
    with _opened(path) as (_, stream):
        return _info(path, stream)


def read_video(
    path: str | Path,
    *,
    max_frames: int | None = None,
    max_pixels: int = MAX_CLIP_PIXELS,
    start: int = 0,
    short_side: int | None = None,
) -> Clip:
    """Decode a file to uint8 RGB at a constant frame rate.

    Frames whose gaps vary (phone footage, screen recordings) are put on a regular grid at the file's average
    rate, each grid point taking the frame nearest in time. Rotation from a phone's display matrix is applied.

    Args:
        path: a local file.
        max_frames: stop after this many decoded frames; None reads all of them.
        max_pixels: largest allowed T x H x W of the result.
        start: frames to skip at the beginning.
        short_side: scale frames down on the way in, so that their shorter side is this many pixels (never
            up).

    Raises:
        InputError: the file is missing, empty, truncated, damaged, has no video or no frames, or is too
            large.
    """
    if start < 0 or (max_frames is not None and max_frames < 1):
        raise ValueError(f"start must be >= 0 and max_frames >= 1, got {start} and {max_frames}")
    with _opened(path) as (container, stream):
        info = _info(path, stream)
        decoded = _decode(path, container, stream, max_frames, max_pixels, start, short_side)
        if decoded.complete:
            _refuse_truncated(path, container, stream, start, decoded)
    if not decoded.frames:
        where = f" after frame {start}" if start else ""
        raise InputError(f"{path}: no video frames{where}")
    frames = torch.from_numpy(np.stack(decoded.frames)).permute(0, 3, 1, 2).contiguous()
    return _at_constant_rate(path, frames, decoded.times, info.fps)


def write_video(clip: Clip, path: str | Path, crf: int = 12, scale: int | None = None) -> None:
    """Write an MP4 that browsers play: H.264, yuv420p, index first.

    Chroma is stored at half resolution, so an odd side is padded by repeating the last row or column, and a
    clip whose shorter side is under 240 px is enlarged by a whole factor with hard pixels unless `scale` says
    otherwise.

    Args:
        clip: uint8 or float.
        path: the file to write; it is replaced.
        crf: H.264 quality, 0 (near lossless) .. 51 (worst).
        scale: enlargement factor; 1 keeps the size, None picks one.
    """
    import av

    frames = clip.as_uint8().frames
    factor = scale or max(1, math.ceil(MIN_SIDE_WRITTEN / min(clip.height, clip.width)))
    frames = frames.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    frames = _padded_to_even(frames).permute(0, 2, 3, 1).contiguous()
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(clip.fps).limit_denominator(1001))
        stream.width, stream.height = int(frames.shape[2]), int(frames.shape[1])
        stream.pix_fmt = "yuv420p"
        # The same clip should give the same bytes everywhere: x264 splits work by thread count, and what it
        # decides by looking ahead (B-frames, macroblock trees) differs now and then from call to call.
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "medium", "x264-params": "bframes=0:mbtree=0"}
        for picture in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open a file for reading; every way in which that fails becomes one line naming the file."""
    import av

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: no such file")
    if file.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    try:
        with av.open(str(file), options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                what = "only sound" if container.streams.audio else "truncated or damaged"
                raise InputError(f"{path}: no video stream in the file ({what})")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise InputError(f"{path}: damaged, or in a video format that this build cannot decode")
            stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
            # Slice threads only: frame threads would swallow the error of a damaged last frame.
            stream.thread_type = "SLICE"
            yield container, stream
    except av.FFmpegError as error:
        reason = str(error.strerror or error).lower()
        raise InputError(f"{path}: truncated, damaged or not a video ({reason})") from error


def _info(path: str | Path, stream: Any) -> VideoInfo:
    context = stream.codec_context
    if context.width < 1 or context.height < 1:
        raise InputError(f"{path}: damaged, its header gives frames no size or one too large to be real")
    _refuse_large_frames(path, context.width, context.height)
    rate = stream.average_rate or stream.guessed_rate
    return VideoInfo(
        width=context.width,
        height=context.height,
        fps=float(rate) if rate else None,
        frames=stream.frames or None,
        seconds=_declared_seconds(stream.container, stream),
        codec=context.name,
    )


def _declared_seconds(container: Any, stream: Any) -> float | None:
    """The video's length by the header, in seconds; None where only the longer audio may be meant."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / 1_000_000)
    return None


def _decode(
    path: str | Path,
    container: Any,
    stream: Any,
    max_frames: int | None,
    max_pixels: int,
    start: int,
    short_side: int | None,
) -> _Decoded:
    frames: list[np.ndarray[Any, Any]] = []
    times: list[float | None] = []
    size: tuple[int, int] | None = None
    seen = 0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise InputError(f"{path}: truncated or damaged at frame {seen}")
        for frame in packet.decode():
            if frame.is_corrupt:
                raise InputError(f"{path}: truncated or damaged at frame {seen}")
            seen += 1
            if seen <= start:
                continue
            _refuse_large_frames(path, frame.width, frame.height)
            # A stream may change its size on the way; the first frame's size holds for all.
            size = size or _scaled_size(frame.height, frame.width, short_side)
            frames.append(_as_rgb(frame, size))
            times.append(frame.time)
            if len(frames) * size[0] * size[1] > max_pixels:
                raise InputError(
                    f"{path}: too large, more than {max_pixels:,} pixels over all frames "
                    f"({size[1]} x {size[0]}, {len(frames)} frames so far)"
                )
            if max_frames is not None and len(frames) == max_frames:
                return _Decoded(frames, times, complete=False)
    return _Decoded(frames, times, complete=True)


def _refuse_large_frames(path: str | Path, width: int, height: int) -> None:
    if width * height > MAX_FRAME_PIXELS:
        raise InputError(
            f"{path}: frames of {width} x {height} are too large, at most {MAX_FRAME_PIXELS:,} pixels"
        )


def _scaled_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    shorter = min(height, width)
    if short_side is None or shorter <= short_side:
        return height, width
    return round(height * short_side / shorter), round(width * short_side / shorter)


def _as_rgb(frame: Any, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    from av.video.reformatter import Interpolation

    height, width = size
    # AREA averages source pixels when shrinking; ACCURATE is what swscale offers against chroma rounding.
    picture = frame.reformat(width=width, height=height, format="rgb24", interpolation=Interpolation.AREA)
    pixels = picture.to_ndarray()
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _refuse_truncated(path: str | Path, container: Any, stream: Any, start: int, decoded: _Decoded) -> None:
    """Compare what the header promised with what came: a file cut between packets decodes without error."""
    got = start + len(decoded.frames)
    promised = stream.frames
    if promised and got < promised * (1 - TRUNCATION_TOLERANCE) - 1:
        raise InputError(f"{path}: truncated, its header promises {promised} frames and {got} are there")
    seconds = _declared_seconds(container, stream)
    last = decoded.times[-1] if decoded.times else None
    if promised or seconds is None or last is None:
        return
    gap = 1 / float(stream.average_rate) if stream.average_rate else 0.0
    begin = float((stream.start_time or 0) * stream.time_base)
    if last - begin + 2 * gap < seconds * (1 - TRUNCATION_TOLERANCE):
        raise InputError(f"{path}: truncated, its header promises {seconds:.2f} s and {last:.2f} s are there")


def _at_constant_rate(
    path: str | Path, frames: Tensor, times: list[float | None], declared: float | None
) -> Clip:
    known = [time for time in times if time is not None]
    # Old containers store the order of decoding and call it time; such stamps run backwards and say nothing.
    usable = len(known) == len(times) >= 2 and bool(np.all(np.diff(known) > 0))
    if not usable:
        if declared is None:
            raise InputError(f"{path}: neither time stamps nor a frame rate in the file")
        return Clip(frames, declared)
    stamps = np.asarray(known) - known[0]
    fps = (len(stamps) - 1) / float(stamps[-1])
    gaps = np.diff(stamps) * fps
    if np.all(np.abs(gaps - 1) <= VARIABLE_RATE_TOLERANCE):
        # Stamps are rounded to the container's clock; the declared rate is the exact one where the two agree.
        exact = declared if declared is not None and abs(declared - fps) <= 0.01 * fps else fps
        return Clip(frames, exact)
    grid = np.arange(len(stamps)) / fps
    nearest = np.abs(stamps[None, :] - grid[:, None]).argmin(axis=1)
    return Clip(frames[torch.from_numpy(nearest)], fps)


def _padded_to_even(frames: Tensor) -> Tensor:
    if frames.shape[2] % 2:
        frames = torch.cat([frames, frames[:, :, -1:]], dim=2)
    if frames.shape[3] % 2:
        frames = torch.cat([frames, frames[:, :, :, -1:]], dim=3)
    return frames
