"""Codec distortions: real encoders where one is at hand (H.264, MPEG-2, JPEG), and what transport does to a
stream."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from components.reward.distortions.registry import Draws, distortion, scaled
from components.reward.filtering import resize


def _round_trip(clip: Tensor, encoder: str, decoder: str, options: dict[str, str]) -> Tensor:
    """Encodes and decodes one clip (T, 3, H, W) float 0..1 in memory, 4:2:0, one thread: the same bytes
    every time."""
    time, _, height, width = clip.shape
    wide, tall = width + width % 2, height + height % 2
    pixels = (clip * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    pixels = np.pad(pixels, ((0, 0), (0, tall - height), (0, wide - width), (0, 0)), mode="edge")
    writer: Any = av.CodecContext.create(encoder, "w")
    writer.width, writer.height, writer.pix_fmt = wide, tall, "yuv420p"
    writer.time_base, writer.framerate = Fraction(1, 25), Fraction(25, 1)
    writer.thread_count = 1
    writer.options = options
    reader: Any = av.CodecContext.create(decoder, "r")
    reader.thread_count = 1
    packets = []
    for index in range(time):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[index]), format="rgb24")
        frame.pts = index
        packets += writer.encode(frame.reformat(format="yuv420p"))
    packets += writer.encode(None)
    decoded = [frame for packet in packets for frame in reader.decode(packet)]
    decoded += reader.decode(None)
    if len(decoded) != time:
        raise RuntimeError(f"{decoder} gave back {len(decoded)} frames of {time}")
    shown = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])[:, :height, :width]
    return torch.from_numpy(shown).permute(0, 3, 1, 2).to(clip.device, clip.dtype) / 255.0


def _each(frames: Tensor, encoder: str, decoder: str, options: dict[str, str]) -> Tensor:
    return torch.stack([_round_trip(clip, encoder, decoder, options) for clip in frames])


@distortion("codec", (30, 36, 41, 46, 51), "CRF")
def h264(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Encoded and decoded by x264."""
    # Without look-ahead: with it the same clip is now and then encoded to other bytes.
    options = {
        "crf": str(int(value)),
        "preset": "veryfast",
        "tune": "zerolatency",
        "x264-params": "threads=1",
    }
    return _each(frames, "libx264", "h264", options)


@distortion("codec", (4, 8, 14, 22, 31), "quantiser")
def mpeg2(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Encoded and decoded as MPEG-2 at a fixed quantiser."""
    quantiser = str(int(value))
    return _each(
        frames, "mpeg2video", "mpeg2video", {"qmin": quantiser, "qmax": quantiser, "bf": "0", "g": "12"}
    )


@distortion("codec", (40, 22, 13, 7, 3), "JPEG quality")
def jpeg(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Every frame a JPEG picture of its own."""
    shown = []
    pixels = (frames * 255.0).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()
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
    small = resize(frames, max(2, round(height / value)), max(2, round(width / value)), "area")
    return resize(small, height, width, "bicubic")


@distortion("codec", (0.06, 0.12, 0.22, 0.38, 0.6), "fraction of slices lost")
def slice_loss(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Lost slices show an earlier frame's rows, shifted, as a decoder's concealment does."""
    _, time, _, height, width = frames.shape
    rows = max(2, round(scaled(frames, 8.0)))
    count = math.ceil(height / rows)
    lost = draws.uniform(time, count) < value
    lost.view(lost.shape[0], -1).scatter_(1, draws.integers(count, time * count, 1), True)
    lost = lost.repeat_interleave(rows, 2)[:, :, :height]
    shift = draws.integers(1, max(2, rows), time, count).repeat_interleave(rows, 2)[:, :, :height]
    columns = (torch.arange(width, device=frames.device) + shift[..., None]).clamp(max=width - 1)
    columns = columns[:, :, None].expand_as(frames)
    out = [frames[:, 0]]
    for moment in range(1, time):
        before = out[-1].gather(-1, columns[:, moment])
        out.append(torch.where(lost[:, moment, None, :, None], before, frames[:, moment]))
    return torch.stack(out, dim=1)
