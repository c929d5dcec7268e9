"""Videos made by ffmpeg and read by ffmpeg: the truth that reading is held against.

Each picture carries its number as 12 black or white cells on top, 12 known colours below them and a texture
that moves under those.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
Pictures = NDArray[np.uint8]
WIDTH, HEIGHT, BITS = 96, 64, 12
STRIP = 16
COLOURS = (
    *((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)),
    *((255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 60, 60), (60, 160, 90), (70, 90, 200)),
)
FLAGS = "area+accurate_rnd+full_chroma_int"


def pictures(count: int, first: int = 0) -> Pictures:
    """uint8 (count, 64, 96, 3)."""
    texture = np.random.default_rng(0).integers(0, 256, (4, 24, 3), dtype=np.uint8)
    made = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    for place in range(count):
        cells = [255 * ((first + place) >> (BITS - 1 - bit) & 1) for bit in range(BITS)]
        made[place, :STRIP] = np.repeat(cells, WIDTH // BITS)[None, :, None]
        made[place, STRIP : 2 * STRIP] = np.repeat(COLOURS, WIDTH // BITS, axis=0)[None]
        moved = np.roll(texture, place, axis=1)
        made[place, 2 * STRIP :] = moved.repeat(8, axis=0).repeat(4, axis=1)
    return made


def numbers(frames: Pictures) -> list[int]:
    """The numbers that (T, H, W, 3) pictures carry."""
    scale_y, scale_x = frames.shape[1] / HEIGHT, frames.shape[2] / WIDTH
    row = int(STRIP * scale_y / 2)
    columns = [int((bit + 0.5) * WIDTH / BITS * scale_x) for bit in range(BITS)]
    return [
        sum(int(frame[row, column].mean() > 127) << (BITS - 1 - bit) for bit, column in enumerate(columns))
        for frame in frames
    ]


def ffmpeg(*arguments: str | Path, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run ffmpeg; a failure is the test's error."""
    done = subprocess.run(
        [FFMPEG, "-nostdin" if data is None else "-hide_banner", "-y", *map(str, arguments)],
        input=data,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()[-800:]
    return done


def make(path: Path, frames: Pictures, *options: str, fps: int = 24) -> Path:
    """Encode pictures with ffmpeg; without options as H.264."""
    height, width = frames.shape[1:3]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    chosen = options or ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "8", "-threads", "1")
    ffmpeg("-v", "error", *source, *chosen, path, data=frames.tobytes())
    return path


def read(path: Path, stream: int = 0, timing: str = "passthrough") -> Pictures:
    """What ffmpeg shows of a file, (T, H, W, 3): every frame once, or by "cfr" at its constant rate."""
    found = ffmpeg(
        *("-v", "error", "-i", path, "-map", f"0:v:{stream}", "-fps_mode", timing),
        *("-vf", f"scale=flags={FLAGS},format=rgb24", "-f", "image2pipe", "-c:v", "ppm", "-"),
    ).stdout
    head = re.match(rb"P6\n(\d+) (\d+)\n255\n", found)
    assert head is not None
    width, height = int(head[1]), int(head[2])
    size = head.end() + 3 * width * height
    shown = np.frombuffer(found, np.uint8).reshape(-1, size)[:, head.end() :]
    return shown.reshape(-1, height, width, 3)


def complaints(path: Path) -> tuple[int, str]:
    """How many frames ffmpeg decodes of a file, and the errors that it speaks of."""
    command = [FFMPEG, "-nostdin", "-v", "error", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-f", "null", "-", "-progress", "-"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.findall(r"frame=\s*(\d+)", done.stdout)
    return int(found[-1]) if found else 0, done.stderr
