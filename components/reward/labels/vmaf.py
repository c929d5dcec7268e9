"""VMAF of many small clips through one ffmpeg process (the binary that the package imageio-ffmpeg ships).

- **Model**: `vmaf_v0.6.1neg`, part of the binary. It gives no credit for "enhancement": the plain model rates
  an over-sharpened or brightened clip above its original. Not clipped to 0..100: strong damage keeps its
  order below 0.
- **Size**: frames with a short side below 96 px are enlarged by whole numbers, nearest neighbour. At 48 px
  the coarsest bands of VMAF's features are 3 x 3 samples, mostly border. Enlarged twice the ranks agree best
  with the designed severity; enlarged four times too many scores lie at the bottom of the scale.
- **Many clips at once**: clips follow each other in one stream, each between two guards, a copy of its first
  frame and a frame of blocks, whose scores are dropped. So motion, VMAF's only feature that looks at
  neighbouring frames, sees what it sees at the ends of a file: every frame's score is what a process for this
  clip alone gives.
- **Range**: VMAF's models were trained on luma of limited range, 16 to 235, and get that.
- **One pipe**: reference and distorted frames travel one above the other and are separated inside ffmpeg, so
  no file and no named pipe is needed.
"""

from __future__ import annotations

import json
import math
import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.runtime.errors import InputError, one_line
from components.video.filters import luma, to_float

MODEL = r"version=vmaf_v0.6.1neg\:disable_clip=true"
#: Filters that make the grey stream the luma of a YUV one without changing a value. ffmpeg takes grey as full
#: range whatever is declared, and would compress it to 16..235 a second time before libvmaf (16 would become
#: 30, 235 would become 218). So it becomes YUV with every value kept, and is then declared as limited range.
AS_IT_IS = "scale=in_range=full:out_range=full,format=yuv444p,setparams=range=limited"
#: px; smaller frames are enlarged to at least this.
SHORT_SIDE = 96
#: Largest stream of one process, unless a single clip is longer.
BATCH_BYTES = 32 * 2**20
#: Seconds after which a process that has not finished is given up.
PATIENCE_S = 600.0
BLOCK = 8


def vmaf(reference: Tensor, distorted: Tensor) -> Tensor:
    """VMAF of each frame of each clip against its original.

    Args:
        reference, distorted: uint8 (N, T, 3, H, W) RGB.

    Returns:
        (N, T) float64; about 97 to 115 for equal frames, below 0 for the worst.

    Raises:
        InputError: there is no ffmpeg, it lacks libvmaf, or it failed.
    """
    if reference.shape != distorted.shape or reference.ndim != 5 or reference.dtype != torch.uint8:
        raise ValueError(f"two uint8 (N, T, 3, H, W) expected, got {reference.shape} and {distorted.shape}")
    count, frames, _, height, width = reference.shape
    if not count or not frames:
        return torch.zeros(count, frames, dtype=torch.float64)
    each = 2 * (frames + 2) * height * width
    step = max(1, BATCH_BYTES // each)
    parts = [
        _scores(_grey(reference[start : start + step]), _grey(distorted[start : start + step]))
        for start in range(0, count, step)
    ]
    return torch.cat(parts)


def ffmpeg() -> str:
    """Path of the ffmpeg binary.

    Raises:
        InputError: there is none.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        reason = one_line(error)[:200]
        raise InputError(
            f"no ffmpeg for VMAF labels ({reason}); install the package imageio-ffmpeg, which ships one"
        ) from error


@lru_cache(maxsize=4)
def identity(executable: str) -> str:
    """What determines the scores: the whole filter graph, and the binary (its name holds its version)."""
    path = Path(executable)
    size = path.stat().st_size if path.is_file() else 0
    # Of one size, small enough to be enlarged: the graphs of all sizes differ in their numbers alone.
    return f"{_graph(SHORT_SIDE // 2, SHORT_SIDE // 2)} {path.name} {size}"


def _grey(frames: Tensor) -> np.ndarray:
    """uint8 RGB (N, T, 3, H, W) -> uint8 (N, T, H, W) luma in the range of video, 16 to 235."""
    light = luma(to_float(frames.cpu()))
    return (16.0 + 219.0 * light).round().to(torch.uint8).numpy()


@lru_cache(maxsize=8)
def _blocks(height: int, width: int) -> np.ndarray:
    """A frame of random black and white blocks: far from any picture, whatever its brightness."""
    drawn = np.random.Generator(np.random.PCG64(0)).integers(0, 2, (height // BLOCK + 1, width // BLOCK + 1))
    large = np.kron(drawn, np.ones((BLOCK, BLOCK), dtype=np.int64))[:height, :width]
    return (16 + 219 * large).astype(np.uint8)


def _stream(reference: np.ndarray, distorted: np.ndarray) -> bytes:
    """The frames of all clips with their guards, each reference frame above its distorted one."""
    count, frames, height, width = reference.shape
    stream = np.empty((count, frames + 2, 2, height, width), dtype=np.uint8)
    for place, clips in enumerate((reference, distorted)):
        stream[:, 0, place] = clips[:, 0]
        stream[:, 1:-1, place] = clips
        stream[:, -1, place] = _blocks(height, width)
    return stream.tobytes()


def _graph(height: int, width: int) -> str:
    factor = max(1, math.ceil(SHORT_SIDE / min(height, width)))
    enlarge = f"scale=iw*{factor}:ih*{factor}:flags=neighbor" if factor > 1 else "null"
    return (
        f"[0:v]{AS_IT_IS},split[a][b];[a]crop={width}:{height}:0:0,{enlarge}[reference];"
        f"[b]crop={width}:{height}:0:{height},{enlarge}[distorted];"
        f"[distorted][reference]libvmaf=model='{MODEL}':log_fmt=json:log_path=/dev/stdout:n_threads=1"
    )


def _command(executable: str, height: int, width: int) -> list[str]:
    return [
        executable, "-hide_banner", "-loglevel", "error", "-threads", "1",
        "-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{width}x{2 * height}", "-r", "25", "-i", "pipe:0",
        "-filter_complex_threads", "1", "-filter_complex", _graph(height, width),
        "-threads", "1", "-f", "null", "-",
    ]  # fmt: skip


def _scores(reference: np.ndarray, distorted: np.ndarray) -> Tensor:
    count, frames, height, width = reference.shape
    executable = ffmpeg()
    try:
        done = subprocess.run(
            _command(executable, height, width),
            input=_stream(reference, distorted),
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"{executable}: VMAF of {count} clips not finished after {PATIENCE_S:.0f} s"
        raise InputError(message) from error
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{executable}: cannot be run for VMAF labels ({reason})") from error
    try:
        # A failing libvmaf may leave exit status 0 and no log.
        rows = json.loads(done.stdout)["frames"]
        values = torch.tensor([float(row["metrics"]["vmaf"]) for row in rows], dtype=torch.float64)
        scores = values.reshape(count, frames + 2)[:, 1:-1]
        if done.returncode or not bool(torch.isfinite(scores).all()):
            raise ValueError("scores that are not finite")
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(_failure(executable, done)) from error
    return scores


def _failure(executable: str, done: subprocess.CompletedProcess[bytes]) -> str:
    said = done.stderr.decode("utf-8", "replace").strip()
    if "libvmaf" in said and ("No such filter" in said or "Filter not found" in said):
        return (
            f"{executable}: this ffmpeg has no libvmaf filter, which VMAF labels need; unset "
            "IMAGEIO_FFMPEG_EXE or install the package imageio-ffmpeg, whose binary has it"
        )
    first = " ".join((said or "no message").splitlines()[0].split())[:200]
    return f"{executable}: VMAF failed with exit status {done.returncode}: {first}"
