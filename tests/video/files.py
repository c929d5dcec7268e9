"""Videos made on the spot: a textured picture that drifts, in whatever container and state a test needs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F

from components.video.clip import Clip


def drifting_clip() -> Clip:
    """24 frames at 24 fps of smooth texture, 64 x 96, one pixel to the left per frame.

    Its light has fine detail and its colour is coarse, as in nature: a codec keeps half of the colour's
    resolution.
    """
    draws = torch.Generator().manual_seed(1)
    light, colour = torch.rand(1, 1, 16, 30, generator=draws), torch.rand(1, 3, 4, 8, generator=draws)
    grown = [F.interpolate(noise, size=(64, 120), mode="bicubic") for noise in (light, colour)]
    wide = (0.6 * grown[0] + 0.4 * grown[1]).clamp(0, 1)[0]
    frames = torch.stack([wide[:, :, k : k + 96] for k in range(24)])
    return Clip((frames * 255).round().to(torch.uint8), 24.0)


def encode(
    clip: Clip, path: Path, *, codec: str = "libx264", times: Sequence[float] | None = None, fast: bool = True
) -> Path:
    """Write with PyAV alone, each frame at its own time in seconds where `times` says so."""
    options = {"movflags": "faststart"} if fast and path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(clip.fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, picture in enumerate(clip.frames.permute(0, 2, 3, 1).contiguous().numpy()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def encode_sound(path: Path) -> Path:
    """A quarter of a second of silence and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        for index in range(12):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 48000, 1024 * index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
