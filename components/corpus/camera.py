"""A camera that moves over a photograph: real texture and real light, with motion that is known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.video.filters import resize, to_uint8

SUPERSAMPLING = 2
ZOOM_RANGE = 0.22  # largest change of log scale over a clip
TURN_RANGE = math.radians(9.0)  # largest turn over a clip
PAN_RANGE = (0.25, 1.8)  # output pixels a frame, for a 48-pixel frame; grows with the frame
MIN_SCALE, MAX_SCALE = 1.2, 6.0  # photograph pixels per output pixel: close view, wide view


@dataclass(frozen=True)
class CameraMove:
    """A path at constant speed. Lengths in output pixels, angles in radians, both over the whole clip."""

    centre: tuple[float, float]  # (x, y) of the view's middle in the photograph's pixels, half way through
    scale: float  # photograph pixels per output pixel half way through
    pan: tuple[float, float]  # (x, y)
    zoom: float  # change of log(scale)
    turn: float


def draw_move(
    rng: np.random.Generator, photo: tuple[int, int], size: tuple[int, int], frames: int
) -> CameraMove | None:
    """Draw a move whose view stays inside the photograph, or None when this draw finds no room.

    Args:
        rng: source of every choice.
        photo: (height, width) of the photograph in pixels.
        size: (height, width) of the clip in pixels.
        frames: frames in the clip.
    """
    zoom = float(rng.uniform(-ZOOM_RANGE, ZOOM_RANGE)) * float(rng.random() < 0.5)
    turn = float(rng.uniform(-TURN_RANGE, TURN_RANGE)) * float(rng.random() < 0.5)
    speed = float(rng.uniform(*PAN_RANGE)) * min(size) / 48 * (frames - 1)
    heading = float(rng.uniform(0.0, 2 * math.pi))
    pan = (speed * math.cos(heading), speed * math.sin(heading))
    # Half the view's diagonal covers it at any angle; half the path is walked to either side of the middle.
    reach = [math.hypot(*size) / 2 * math.exp(abs(zoom) / 2) + abs(step) / 2 + 1 for step in pan]
    limit = min(photo[1] / (2 * reach[0]), photo[0] / (2 * reach[1]), MAX_SCALE)
    if limit < MIN_SCALE:
        return None
    scale = float(rng.uniform(MIN_SCALE, limit))
    centre = tuple(
        float(rng.uniform(margin * scale, length - margin * scale))
        for margin, length in zip(reach, (photo[1], photo[0]), strict=True)
    )
    return CameraMove((centre[0], centre[1]), scale, pan, zoom, turn)


def film(photo: Tensor, move: CameraMove, size: tuple[int, int], frames: int) -> Tensor:
    """Film a photograph.

    The photograph is first shrunk to the view's scale with antialiasing, then sampled bicubically at twice
    the resolution and averaged down, so that motion by fractions of a pixel neither jumps nor shimmers.

    Args:
        photo: (3, H, W) float32 in 0..1.
        move: the camera's path.
        size: (height, width) in pixels.
        frames: T.

    Returns:
        (T, 3, height, width) uint8.
    """
    shrunk_size = (max(1, round(photo.shape[1] / move.scale)), max(1, round(photo.shape[2] / move.scale)))
    shrunk = resize(photo[None], *shrunk_size, "bicubic")
    rows, columns = (length * SUPERSAMPLING for length in size)
    y, x = torch.meshgrid(
        (torch.arange(rows) + 0.5) / SUPERSAMPLING - size[0] / 2,
        (torch.arange(columns) + 0.5) / SUPERSAMPLING - size[1] / 2,
        indexing="ij",
    )
    grids = []
    for time in torch.linspace(-0.5, 0.5, frames).tolist():
        stretch, angle = math.exp(move.zoom * time), move.turn * time
        cos, sin = math.cos(angle) * stretch, math.sin(angle) * stretch
        across = cos * x - sin * y + move.centre[0] / move.scale + move.pan[0] * time
        along = sin * x + cos * y + move.centre[1] / move.scale + move.pan[1] * time
        grids.append(torch.stack([across * 2 / shrunk_size[1] - 1, along * 2 / shrunk_size[0] - 1], dim=-1))
    grid = torch.stack(grids)
    sampled = F.grid_sample(
        shrunk.expand(frames, -1, -1, -1),
        grid,
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )
    return to_uint8(F.avg_pool2d(sampled, SUPERSAMPLING))
