"""Opening a video file and decoding it. A file is untrusted: probed, bounded, refused in one clear line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.runtime.errors import InputError
from components.video.decode.truncation import ends_early

# Playlists (m3u8, concat, ...) would let a file make the decoder open other files or addresses, hence a list.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,"
    "h264,hevc,ogg,flv,asf,ivf,gif,yuv4mpegpipe"
)
MAX_FRAME_PIXELS = 8192 * 4320
# Declared length against shown length: containers round, and a last frame's own duration is not always kept.
MISSING_TAIL = 0.05
#: Joined transport streams count their packets anew, which the demuxer reports as damage that is none.
JOINED = frozenset({"mpegts"})


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header says, before any frame is decoded.

    Attributes:
        width: px, as stored: before a phone's rotation.
        height: px, as stored.
        fps: frames per second.
        frames: those that are shown; None where the container does not count them.
    """

    width: int
    height: int
    fps: float | None
    frames: int | None


def probe(path: str | Path) -> VideoInfo:
    """Read the header of a video file.

    Raises:
        InputError: missing, empty, not a video, without a video stream, or with frames too large.
    """
    with opened(path) as (_, stream):
        return info_of(path, stream)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open a file's container and its video stream; whatever fails ends in one line that names the file.

    Raises:
        InputError: as `probe`, and for what goes wrong while the file is read in the `with` block.
    """
    import av

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: no such file")
    if file.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    try:
        # FFmpeg takes what stands before a colon for a protocol, unless the path begins at the root.
        with av.open(str(file.absolute()), options=options, metadata_errors="replace") as container:
            stream = _chosen(path, container)
            # What is wrong with the sound is no matter here.
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = av.stream.Discard.all
            stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
            # Slice threads only: frame threads would swallow the error of a damaged last frame.
            stream.thread_type = "SLICE"
            yield container, stream
    except av.FFmpegError as error:
        reason = str(error.strerror or error).lower()
        raise InputError(f"{path}: truncated, damaged or not a video ({reason})") from error


def info_of(path: str | Path, stream: Any) -> VideoInfo:
    """What the header says of an opened stream; as `probe`."""
    context = stream.codec_context
    if context.width < 1 or context.height < 1:
        raise InputError(f"{path}: damaged, its header gives frames no size or one too large to be real")
    refuse_large_frames(path, context.width, context.height)
    rate = stream.average_rate or stream.guessed_rate
    return VideoInfo(
        width=context.width,
        height=context.height,
        fps=float(rate) if rate else None,
        frames=_shown_samples(stream) or stream.frames or None,
    )


def decoded(path: str | Path, container: Any, stream: Any) -> Iterator[Any]:
    """Every frame that is shown, in order.

    The end of the iteration says that the file is whole: nothing was damaged and nothing is missing.

    Raises:
        InputError: truncated or damaged.
    """
    joined = container.format.name in JOINED
    count, last, tail_damaged = 0, None, False
    for packet in container.demux(stream):
        if packet.is_corrupt and not joined:
            raise InputError(f"{path}: truncated or damaged at frame {count}")
        if packet.size:
            tail_damaged = packet.is_corrupt
        for frame in packet.decode():
            if frame.is_corrupt:
                raise InputError(f"{path}: truncated or damaged at frame {count}")
            refuse_large_frames(path, frame.width, frame.height)
            last = frame.time
            count += 1
            yield frame
    if tail_damaged:
        raise InputError(f"{path}: truncated or damaged at frame {count}")
    _refuse_truncated(path, container, stream, count, last)


def refuse_large_frames(path: str | Path, width: int, height: int) -> None:
    """Raise an InputError where a frame has more pixels than any video."""
    if width * height > MAX_FRAME_PIXELS:
        raise InputError(
            f"{path}: frames of {width} x {height} are too large, at most {MAX_FRAME_PIXELS:,} pixels"
        )


def _chosen(path: str | Path, container: Any) -> Any:
    """The video stream that a player shows: the default one, among several of them the largest."""
    from av.stream import Disposition

    no_video = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    videos = [stream for stream in container.streams.video if not stream.disposition & no_video]
    if not videos:
        what = "truncated or damaged"
        if container.streams.video:
            what = "only a picture"
        elif container.streams.audio:
            what = "only sound"
        raise InputError(f"{path}: no video stream in the file ({what})")
    known = [stream for stream in videos if stream.codec_context is not None]
    if not known:
        raise InputError(f"{path}: damaged, or in a video format that this build cannot decode")
    return max(
        known,
        key=lambda stream: (
            bool(stream.disposition & Disposition.default),
            stream.codec_context.width * stream.codec_context.height,
            -stream.index,
        ),
    )


def _shown_samples(stream: Any) -> int:
    """Samples of an MP4 or MOV file that its edit list shows; 0 for other containers and fragmented files."""
    if "mp4" not in stream.container.format.name or not stream.frames:
        return 0
    return sum(not entry.is_discard for entry in stream.index_entries)


def _declared_seconds(stream: Any) -> float | None:
    """The video's length by the header, in seconds; None where only the longer audio may be meant."""
    container = stream.container
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / 1_000_000)
    return None


def _refuse_truncated(path: str | Path, container: Any, stream: Any, count: int, last: float | None) -> None:
    """Refuse a file that was cut where the decoder cannot notice: between two frames."""
    size = Path(path).stat().st_size
    if _shown_samples(stream):
        missing = sum(entry.pos + entry.size > size for entry in stream.index_entries)
        if missing:
            raise InputError(f"{path}: truncated, {missing} of its samples lie beyond the end of the file")
        return
    if ends_early(Path(path), container.format.name):
        raise InputError(f"{path}: truncated, the file ends inside its video ({count} frames are there)")
    seconds = _declared_seconds(stream)
    if seconds is None or last is None:
        return
    gap = 1 / float(stream.average_rate) if stream.average_rate else 0.0
    # Stamps need not begin at 0: a piece of a longer file keeps those of the whole. Its header then gives the
    # length or the time of the end; taking it for the time of the end refuses nothing that is whole.
    if last + 2 * gap < seconds * (1 - MISSING_TAIL):
        raise InputError(f"{path}: truncated, its header promises {seconds:.2f} s and {last:.2f} s are there")
