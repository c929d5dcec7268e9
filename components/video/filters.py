"""Pixels, colours, low-pass filters and resizing of video tensors.

Filters are small dense matrices applied along one axis: on frames of this size a matrix product is several
times faster than a one-channel convolution, and borders (mirrored) are handled inside the matrix.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

#: ITU-R BT.601: luma weights of R, G, B; scales of the blue and red difference to -0.5..0.5.
LUMA = (0.299, 0.587, 0.114)
BLUE_DIFFERENCE, RED_DIFFERENCE = 0.564, 0.713


def to_float(frames: Tensor) -> Tensor:
    """uint8 0..255 to float32 0..1; floats only become float32."""
    return frames.float() / 255.0 if frames.dtype == torch.uint8 else frames.float()


def to_uint8(frames: Tensor) -> Tensor:
    """Floats in 0..1 to uint8 0..255, clamped and rounded to nearest."""
    return (frames.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


def _mirror(index: int, size: int) -> int:
    """Reflects an out-of-range index back inside 0..size-1 (edge pixel not repeated)."""
    if size == 1:
        return 0
    index = abs(index) % (2 * (size - 1))
    return 2 * (size - 1) - index if index >= size else index


@lru_cache(maxsize=256)
def _kernel_matrix(size: int, kernel: tuple[float, ...]) -> Tensor:
    matrix, radius = torch.zeros(size, size), len(kernel) // 2
    for row in range(size):
        for k, weight in enumerate(kernel):
            matrix[row, _mirror(row + k - radius, size)] += weight
    return matrix


def _filtered(frames: Tensor, kernel: tuple[float, ...]) -> Tensor:
    rows, columns = (
        _kernel_matrix(size, kernel).to(frames.device, frames.dtype) for size in frames.shape[-2:]
    )
    return torch.matmul(rows, torch.matmul(frames, columns.T))


def gaussian_blur(frames: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (..., H, W) with standard deviation sigma in px; sigma <= 0 is the identity."""
    if sigma <= 0:
        return frames
    radius = max(1, math.ceil(3.0 * sigma))
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    total = sum(weights)
    return _filtered(frames, tuple(weight / total for weight in weights))


def box_blur(frames: Tensor, radius: int) -> Tensor:
    """Mean over a (2 radius + 1) x (2 radius + 1) px window of (..., H, W)."""
    width = 2 * radius + 1
    return _filtered(frames, (1.0 / width,) * width)


def luma(frames: Tensor) -> Tensor:
    """(..., 3, H, W) RGB in 0..1 -> (..., H, W) BT.601 luma in 0..1."""
    red, green, blue = frames.unbind(-3)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def chroma(frames: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 3, H, W) RGB in 0..1 -> two (..., H, W) planes, blue and red difference, each in -0.5..0.5."""
    grey = luma(frames)
    return (frames[..., 2, :, :] - grey) * BLUE_DIFFERENCE, (frames[..., 0, :, :] - grey) * RED_DIFFERENCE


def rgb_of_chroma(blue: Tensor, red: Tensor) -> Tensor:
    """The inverse of `chroma` at luma 0: two (..., H, W) difference planes -> (..., 3, H, W)."""
    blue, red = blue / BLUE_DIFFERENCE, red / RED_DIFFERENCE
    return torch.stack((red, -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1], blue), dim=-3)


def displace(frames: Tensor, dx: Tensor, dy: Tensor, mode: str = "bicubic") -> Tensor:
    """Reads each output pixel of (B, T, C, H, W) at (x + dx, y + dy); borders repeat.

    Args:
        frames: (B, T, C, H, W) float.
        dx, dy: displacement in px, broadcastable to (B, T, H, W).
        mode: "bicubic" keeps sharpness under sub-pixel shifts; "bilinear" is cheaper.
    """
    batch, time, channels, height, width = frames.shape
    shape = (batch, time, height, width)
    ys = torch.arange(height, device=frames.device, dtype=frames.dtype)[:, None]
    xs = torch.arange(width, device=frames.device, dtype=frames.dtype)[None, :]
    gx = (xs + dx.to(frames.dtype)).expand(shape) * (2.0 / max(width - 1, 1)) - 1.0
    gy = (ys + dy.to(frames.dtype)).expand(shape) * (2.0 / max(height - 1, 1)) - 1.0
    grid = torch.stack((gx, gy), dim=-1).reshape(batch * time, height, width, 2)
    flat = frames.reshape(batch * time, channels, height, width)
    moved = F.grid_sample(flat, grid, mode=mode, padding_mode="border", align_corners=True)
    return moved.reshape(frames.shape)


def resize(frames: Tensor, height: int, width: int, mode: str = "area") -> Tensor:
    """Resizes (..., C, H, W) to height x width px. `area` averages, `bilinear` antialiases when shrinking."""
    lead = frames.shape[:-3]
    flat = frames.reshape(-1, *frames.shape[-3:])
    if mode in ("bilinear", "bicubic"):
        out = F.interpolate(flat, size=(height, width), mode=mode, antialias=True, align_corners=False)
    else:
        out = F.interpolate(flat, size=(height, width), mode=mode)
    return out.reshape(*lead, *out.shape[-3:])
