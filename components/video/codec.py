"""Reading video files into clips, and writing them."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from components.video.clip import Clip
from components.video.decode.frames import open_frames

MAX_CLIP_PIXELS = 400_000_000  # 1.2 GB of RGB bytes
# Players scale a 48-pixel video up with blur, so it is enlarged with hard pixels first.
MIN_SIDE_WRITTEN = 240
# From so many lines on, players take a video that does not say for BT.709, below for BT.601.
HD_LINES = 720
# ITU-T H.273's code points: primaries and transfer of BT.709, the matrices of BT.709 and BT.601.
_BT709, _BT601_MATRIX, _LIMITED_RANGE = 1, 6, 1


def read_video(
    path: str | Path,
    *,
    max_frames: int | None = None,
    max_pixels: int = MAX_CLIP_PIXELS,
    short_side: int | None = None,
) -> Clip:
    """Decode a file to uint8 RGB at a constant frame rate, as a player shows it (see `colour` and `timing`).

    Args:
        path: a local file.
        max_frames: read the first so many frames; None reads all of them.
        max_pixels: largest allowed T x H x W of the result.
        short_side: scale frames down on the way in, so that their shorter side is this many pixels (never
            up).

    Raises:
        InputError: the file is missing, empty, truncated, damaged, has no video or no frames, or is too
            large.
    """
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames must be >= 1, got {max_frames}")
    frames, fps = open_frames(path, math.inf, max_pixels, max_frames, short_side)
    assert isinstance(frames, Tensor)
    return Clip(frames, fps)


def write_video(clip: Clip, path: str | Path, crf: int = 12, scale: int | None = None) -> None:
    """Write an MP4 that browsers play: H.264, yuv420p, index first, its colours tagged.

    Chroma is stored at half resolution, so an odd side is padded by repeating the last row or column, and a
    clip whose shorter side is under 240 px is enlarged by a whole factor with hard pixels unless `scale` says
    otherwise. The matrix is BT.709's from 720 lines on and BT.601's below, limited range, as players expect.

    Args:
        clip: uint8 or float.
        path: the file to write; it is replaced.
        crf: H.264 quality, 0 (near lossless) .. 51 (worst).
        scale: enlargement factor; 1 keeps the size, None picks one.
    """
    import av
    from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

    frames = clip.as_uint8().frames
    factor = scale or max(1, math.ceil(MIN_SIDE_WRITTEN / min(clip.height, clip.width)))
    frames = frames.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    frames = _padded_to_even(frames).permute(0, 2, 3, 1).contiguous()
    high = frames.shape[1] >= HD_LINES
    reformatter = VideoReformatter()
    # Absolute: FFmpeg takes what stands before a colon for a protocol.
    file = str(Path(path).absolute())
    with av.open(file, "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(clip.fps).limit_denominator(1001))
        stream.width, stream.height = int(frames.shape[2]), int(frames.shape[1])
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_primaries = context.color_trc = _BT709
        context.colorspace = _BT709 if high else _BT601_MATRIX
        context.color_range = _LIMITED_RANGE
        # The same clip should give the same bytes everywhere: x264 splits work by thread count, and what it
        # decides by looking ahead (B-frames, macroblock trees) differs now and then from call to call.
        context.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "medium", "x264-params": "bframes=0:mbtree=0"}
        for picture in frames.numpy():
            coded = reformatter.reformat(
                av.VideoFrame.from_ndarray(picture, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709 if high else Colorspace.ITU601,
                dst_color_range=_LIMITED_RANGE,
                interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND,
                threads=1,
            )
            container.mux(stream.encode(coded))
        container.mux(stream.encode(None))


def _padded_to_even(frames: Tensor) -> Tensor:
    if frames.shape[2] % 2:
        frames = torch.cat([frames, frames[:, :, -1:]], dim=2)
    if frames.shape[3] % 2:
        frames = torch.cat([frames, frames[:, :, :, -1:]], dim=3)
    return frames
