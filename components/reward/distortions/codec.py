"""Codec distortions: real encoders and decoders, and what transport does to their streams."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from components.reward.distortions.base import Draws, distortion
from components.reward.distortions.bitstream import (
    Packets,
    damage_mpeg2_slices,
    lose_h264_slices,
    through,
)
from components.video.filters import resize, to_uint8

#: Without look-ahead: with it the same clip is now and then encoded to other bytes.
X264 = {"preset": "veryfast", "tune": "zerolatency", "x264-params": "threads=1"}
#: px; a row of macroblocks is the least that H.264 and MPEG-2 slices hold.
MACROBLOCK = 16
MOST_SLICES = 16


@distortion("codec", (30, 36, 41, 46, 51), "CRF")
def h264(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Encoded and decoded by x264."""
    return through(frames, "libx264", "h264", {**X264, "crf": str(int(value))})


@distortion("codec", (28, 34, 39, 45, 51), "CRF")
def h265(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Encoded and decoded by x265."""
    quiet = "pools=none:frame-threads=1:wpp=0:log-level=none"
    options = {"preset": "ultrafast", "tune": "zerolatency", "x265-params": quiet, "crf": str(int(value))}
    return through(frames, "libx265", "hevc", options)


@distortion("codec", (4, 8, 14, 22, 31), "quantiser")
def mpeg2(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Encoded and decoded as MPEG-2 at a fixed quantiser."""
    return through(frames, "mpeg2video", "mpeg2video", _fixed(value, every=12))


@distortion("codec", (4, 8, 14, 22, 31), "quantiser")
def mpeg4(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Encoded and decoded as MPEG-4 part 2 at a fixed quantiser."""
    return through(frames, "mpeg4", "mpeg4", _fixed(value, every=250))


@distortion("codec", (36, 44, 51, 57, 63), "quantiser")
def vp9(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Encoded and decoded as VP9 by libvpx."""
    options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "row-mt": "0", "b": "0"}
    quantiser = dict.fromkeys(("crf", "qmin", "qmax"), str(int(value)))
    return through(frames, "libvpx-vp9", "vp9", {**options, **quantiser})


@distortion("codec", (36, 44, 51, 57, 63), "CRF")
def av1(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Encoded and decoded as AV1 by SVT-AV1 and dav1d."""
    options = {"preset": "12", "svtav1-params": "lp=1:rtc=1", "crf": str(int(value))}
    return through(frames, "libsvtav1", "libdav1d", options)


@distortion("codec", (40, 22, 13, 7, 3), "JPEG quality")
def jpeg(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Every frame a JPEG picture of its own."""
    shown = []
    pixels = to_uint8(frames).permute(0, 1, 3, 4, 2).cpu().numpy()
    for picture in pixels.reshape(-1, *pixels.shape[2:]):
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, format="JPEG", quality=int(value))
        shown.append(np.asarray(Image.open(stream)))
    out = torch.from_numpy(np.stack(shown)).reshape(pixels.shape)
    return out.permute(0, 1, 4, 2, 3).to(frames.device, frames.dtype) / 255.0


@distortion("codec", (1.5, 2, 3, 4, 6), "scale factor")
def downscale(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Sent small and enlarged again."""
    height, width = frames.shape[-2:]
    small = resize(frames, max(2, round(height / value)), max(2, round(width / value)), "bicubic")
    return resize(small, height, width, "bicubic")


@distortion("codec", (0.06, 0.12, 0.22, 0.38, 0.6), "fraction of slices lost")
def slice_loss(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Slices of an H.264 stream never arrive; the decoder conceals them as it can."""
    count = _slices(frames)
    lost = _hit(draws, value, frames.shape[1], count).tolist()

    def harm(index: int, packets: Packets) -> Packets:
        return [lose_h264_slices(data, row) for data, row in zip(packets, lost[index], strict=True)]

    options = {**X264, "crf": "22", "x264-params": f"threads=1:slices={count}:keyint=250"}
    return through(frames, "libx264", "h264", options, harm)


@distortion("codec", (0.06, 0.14, 0.25, 0.4, 0.6), "fraction of packets lost")
def packet_loss(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Whole packets of an MPEG-4 stream never arrive; later frames are built on the wrong picture."""
    lost = _hit(draws, value, frames.shape[1]).tolist()

    def harm(index: int, packets: Packets) -> Packets:
        return [b"" if gone else data for data, gone in zip(packets, lost[index], strict=True)]

    return through(frames, "mpeg4", "mpeg4", _fixed(4, every=250), harm)


@distortion("codec", (0.05, 0.12, 0.22, 0.4, 0.7), "fraction of slices damaged")
def bit_errors(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Bytes of an MPEG-2 stream arrive wrong; the decoder shows garbage or conceals it."""
    time, count = frames.shape[1], _slices(frames)
    hit = _hit(draws, value, time, count).tolist()
    where = draws.uniform(time, count).cpu().tolist()
    noise = draws.integers(0, 256, time, 6).cpu().tolist()

    def harm(index: int, packets: Packets) -> Packets:
        errors = zip(packets, hit[index], where[index], map(bytes, noise[index]), strict=True)
        return [damage_mpeg2_slices(*error) for error in errors]

    return through(frames, "mpeg2video", "mpeg2video", _fixed(4, every=12), harm)


def _hit(draws: Draws, share: float, time: int, *slices: int) -> Tensor:
    """(B, T) or (B, T, slices) bool: which parts of a stream are damaged, at least one in each clip.

    The first picture arrives whole, as a player waits for one before it starts.
    """
    hit = draws.uniform(time, *slices).cpu() < share
    count = math.prod(slices)
    hit.flatten(1).scatter_(1, draws.integers(count, time * count, 1).cpu(), True)
    hit[:, 0] = False
    return hit


def _fixed(quantiser: float, every: int) -> dict[str, str]:
    """FFmpeg's own MPEG encoders at one quantiser, no B frames, a key frame every so many frames."""
    value = str(int(quantiser))
    return {"qmin": value, "qmax": value, "bf": "0", "g": str(every)}


def _slices(frames: Tensor) -> int:
    """Slices in a frame: one for each row of macroblocks, up to a limit."""
    return min(MOST_SLICES, math.ceil(max(MACROBLOCK, frames.shape[-2]) / MACROBLOCK))
