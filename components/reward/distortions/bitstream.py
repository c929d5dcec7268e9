"""Real video streams in memory: encode a clip, damage its bytes, decode what is left.

Colours are converted here, for a whole batch at once: on small frames a video library's conversion frame by
frame costs several times what the codec itself does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from threading import Thread
from typing import Any, Literal

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.runtime.errors import InputError
from components.video.filters import chroma, luma, rgb_of_chroma

# SVT-AV1 prints its settings to stderr unless this is set before its first use.
os.environ.setdefault("SVT_LOG", "-1")

#: Smallest side in px that every encoder here takes; smaller frames are padded and cropped again.
MIN_SIDE = 16

#: Encoders that run in a thread of their own. As root, SVT-AV1 4.1 makes its calling thread a real-time one,
#: and everything else on the machine waits for it. At times it deadlocks, with all of its threads asleep.
APART = frozenset({"libsvtav1"})
#: Seconds for one clip in such an encoder, thousands of times what it needs, and the number of attempts.
PATIENCE_S, ATTEMPTS = 120.0, 3

#: A stream: one packet a frame, in order. An empty packet is one that never arrived.
Packets = list[bytes]
#: What transport does to the stream of clip i of a batch.
Harm = Callable[[int, Packets], Packets]


def encode(planes: np.ndarray[Any, Any], encoder: str, options: Mapping[str, str]) -> Packets:
    """Encodes one clip without look-ahead or reordering, on one thread: the same bytes every time.

    Args:
        planes: uint8 (T, 3H/2, W) as `to_planes` makes them.

    Returns:
        T packets.

    Raises:
        RuntimeError: the encoder does not give a packet a frame, or hung at every attempt.
    """
    if encoder not in APART:
        return _encode(planes, encoder, options)
    for _ in range(ATTEMPTS):
        packets: Future[Packets] = Future()
        # Nothing can end a thread that sleeps in a library. It is left behind, and ends with the process.
        Thread(target=_fulfil, args=(packets, planes, encoder, options), daemon=True).start()
        with suppress(TimeoutError):
            return packets.result(timeout=PATIENCE_S)
    raise RuntimeError(f"{encoder} hung for {PATIENCE_S:g} s, {ATTEMPTS} times")


def _fulfil(
    packets: Future[Packets], planes: np.ndarray[Any, Any], encoder: str, options: Mapping[str, str]
) -> None:
    try:
        packets.set_result(_encode(planes, encoder, options))
    except BaseException as error:
        packets.set_exception(error)


def _encode(planes: np.ndarray[Any, Any], encoder: str, options: Mapping[str, str]) -> Packets:
    time, tall, width = planes.shape
    _require(encoder, "w")
    writer: Any = av.CodecContext.create(encoder, "w")
    writer.width, writer.height, writer.pix_fmt = width, tall * 2 // 3, "yuv420p"
    writer.time_base, writer.framerate = Fraction(1, 25), Fraction(25, 1)
    writer.thread_count = 1
    writer.options = dict(options)
    packets: list[Any] = []
    for moment, picture in enumerate(planes):
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts = moment
        packets += writer.encode(frame)
    packets += writer.encode(None)
    if [packet.pts for packet in packets] != list(range(time)):
        raise RuntimeError(f"{encoder} made {len(packets)} packets of {time} frames, or not in their order")
    return [bytes(packet) for packet in packets]


def decode(packets: Sequence[bytes], decoder: str, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Decodes a stream, damaged or not, with the decoder's own concealment of errors.

    A frame that cannot be decoded shows the picture before it, as in a player; frames before the first
    picture show the first.

    Args:
        packets: one a frame.
        shape: (3H/2, W) of every frame; a frame of another size, from a damaged header, is dropped.

    Returns:
        uint8 (T, 3H/2, W).
    """
    _require(decoder, "r")
    reader: Any = av.CodecContext.create(decoder, "r")
    reader.thread_count = 1
    reader.options = {"flags": "+output_corrupt", "flags2": "+showall"}
    shown: dict[int, np.ndarray[Any, Any]] = {}

    def take(packet: Any) -> None:
        try:
            frames = reader.decode(packet)
        except av.FFmpegError:
            return
        for frame in frames:
            if frame.pts is not None and frame.format.name in ("yuv420p", "yuvj420p"):
                picture = frame.to_ndarray()
                if picture.shape == shape:
                    shown.setdefault(int(frame.pts), picture)

    for moment, data in enumerate(packets):
        if data:
            # Not Packet(data): decoders read past the end, and only what FFmpeg allocates ends in zeros.
            packet = av.Packet(len(data))
            packet.update(data)
            packet.pts = moment
            take(packet)
    take(None)
    if not shown:
        raise RuntimeError(f"{decoder} decoded none of {len(packets)} frames")
    held = [shown[min(shown)]]
    for moment in range(len(packets)):
        held.append(shown.get(moment, held[-1]))
    return np.stack(held[1:])


def through(
    frames: Tensor, encoder: str, decoder: str, options: Mapping[str, str], harm: Harm | None = None
) -> Tensor:
    """Encodes and decodes every clip of a batch, 4:2:0.

    Args:
        frames: (B, T, 3, H, W) float in 0..1.
        harm: what happens to a stream on its way; nothing by default.

    Returns:
        (B, T, 3, H, W), same dtype and device.
    """
    height, width = frames.shape[-2:]
    planes = to_planes(frames)
    decoded = []
    for index, clip in enumerate(planes):
        packets = encode(clip, encoder, options)
        if harm is not None:
            packets = harm(index, packets)
        decoded.append(decode(packets, decoder, clip.shape[1:]))
    shown = torch.from_numpy(np.stack(decoded)).to(frames.device)
    return from_planes(shown)[..., :height, :width].to(frames.dtype)


def to_planes(frames: Tensor) -> np.ndarray[Any, Any]:
    """(B, T, 3, H, W) float in 0..1 -> uint8 (B, T, 3H'/2, W'): luma rows, then blue, then red difference.

    BT.601, studio range, chroma averaged over 2 x 2 px. H' and W' are H and W made even and at least
    MIN_SIDE, by repeating the last row and column.
    """
    batch, time, _, height, width = frames.shape
    tall, wide = (max(MIN_SIDE, side + side % 2) for side in (height, width))
    flat = frames.flatten(0, 1).float().clamp(0.0, 1.0)
    if (tall, wide) != (height, width):
        flat = F.pad(flat, (0, wide - width, 0, tall - height), mode="replicate")
    difference = F.avg_pool2d(torch.stack(chroma(flat), dim=1), 2)
    planes = (16.0 + 219.0 * luma(flat), 128.0 + 224.0 * difference)
    parts = torch.cat([plane.reshape(batch, time, -1) for plane in planes], dim=-1)
    pixels = parts.round().clamp(0, 255).to(torch.uint8)
    return pixels.reshape(batch, time, tall * 3 // 2, wide).cpu().numpy()


def from_planes(planes: Tensor) -> Tensor:
    """uint8 (..., 3H/2, W) as of `to_planes` -> (..., 3, H, W) float32 in 0..1, chroma interpolated."""
    *lead, tall, wide = planes.shape
    height = tall * 2 // 3
    flat = planes.reshape(-1, tall * wide).float()
    grey = ((flat[:, : height * wide] - 16.0) / 219.0).reshape(-1, height, wide)
    small = ((flat[:, height * wide :] - 128.0) / 224.0).reshape(-1, 2, height // 2, wide // 2)
    blue, red = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False).unbind(1)
    shown = grey.unsqueeze(1) + rgb_of_chroma(blue, red)
    return shown.clamp(0.0, 1.0).reshape(*lead, 3, height, wide)


H264_START = re.compile(rb"\x00\x00+\x01")
MPEG2_SLICE = re.compile(rb"\x00\x00\x01[\x01-\xaf]")


def lose_h264_slices(packet: bytes, lost: Sequence[bool]) -> bytes:
    """An H.264 packet without the slices marked in `lost`; headers always arrive."""
    kept, slices, arrived = b"", 0, 0
    for unit in filter(None, H264_START.split(packet)):
        if unit[0] & 31 in (1, 5):  # a coded slice
            slices += 1
            if lost[(slices - 1) % len(lost)]:
                continue
            arrived += 1
        kept += b"\x00\x00\x00\x01" + unit
    return kept if arrived else b""


def damage_mpeg2_slices(packet: bytes, hit: Sequence[bool], where: Sequence[float], noise: bytes) -> bytes:
    """An MPEG-2 packet with `noise` written over the slices marked in `hit`; headers always arrive whole.

    Args:
        where: for each slice the place in it, 0 (its first byte) to 1.
        noise: the bytes written; a slice that is shorter takes as many as it has.
    """
    damaged = bytearray(packet)
    # A slice's own header is its start code and the byte after it, with the quantiser.
    starts = [match.end() + 1 for match in MPEG2_SLICE.finditer(packet)]
    ends = [start - 5 for start in starts[1:]] + [len(packet)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if hit[number % len(hit)]:
            size = min(len(noise), max(0, end - start))
            at = start + int(where[number % len(where)] * (end - start - size))
            damaged[at : at + size] = noise[:size]
    return bytes(damaged)


@lru_cache(maxsize=64)
def _require(codec: str, mode: Literal["r", "w"]) -> None:
    """Raises InputError where this build of PyAV lacks an encoder ("w") or a decoder ("r")."""
    try:
        av.codec.Codec(codec, mode)
    except (av.FFmpegError, ValueError) as error:
        kind = "encoder" if mode == "w" else "decoder"
        raise InputError(f"this build of PyAV has no {kind} {codec}; the wheels on PyPI have it") from error
