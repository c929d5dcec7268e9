"""Classical optical flow and the frame between two frames. No weights, no network: what a laptop has."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.video.filters import to_float

METHOD = "tvl1"  # TV-L1 of Zach, Pock and Bischof 2007, as scikit-image implements it


def optical_flow(first: Tensor, second: Tensor) -> Tensor:
    """Where each pixel of `first` went.

    Args:
        first: (3, H, W) uint8 0..255 or float32 0..1.
        second: the same, the later frame.

    Returns:
        (2, H, W) float32 in pixels, channel 0 to the right, channel 1 down: first(x, y) = second(x + u, y +
        v).
    """
    from skimage.registration import optical_flow_tvl1

    if first.shape != second.shape or first.ndim != 3:
        raise ValueError(f"two (3, H, W) frames expected, got {tuple(first.shape)} and {tuple(second.shape)}")
    grey = _along_contrast(torch.stack([to_float(first), to_float(second)])).numpy()
    down, right = optical_flow_tvl1(grey[0], grey[1], attachment=30, num_warp=5, num_iter=10)
    return torch.from_numpy(np.stack([right, down]).astype(np.float32))


def interpolate_middle(first: Tensor, second: Tensor) -> Tensor:
    """The frame half way between two frames, by moving both along the flow and averaging them.

    Args:
        first: (3, H, W) uint8 0..255 or float32 0..1.
        second: the same, the later frame.

    Returns:
        (3, H, W) float32 in 0..1.
    """
    first, second = to_float(first), to_float(second)
    return middle_along(first, second, optical_flow(first, second))


def middle_along(first: Tensor, second: Tensor, forward: Tensor) -> Tensor:
    """The frame half way between two frames whose flow is known.

    Args:
        first: (3, H, W) float32 in 0..1.
        second: the same, the later frame.
        forward: (2, H, W) float32, where each pixel of `first` went, in pixels.

    Returns:
        (3, H, W) float32 in 0..1.
    """
    middle = _splat_half(forward, _trust(first, second, forward))
    return ((warp(first, -middle / 2) + warp(second, middle / 2)) / 2).clamp(0.0, 1.0)


def warp(frame: Tensor, flow: Tensor) -> Tensor:
    """frame(x + u, y + v) bilinearly, borders repeated; frame (C, H, W) float, flow (2, H, W) in pixels."""
    height, width = frame.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = (columns + flow[0] + 0.5) * 2 / width - 1
    y = (rows + flow[1] + 0.5) * 2 / height - 1
    grid = torch.stack([x, y], dim=-1)[None].to(frame.dtype)
    return F.grid_sample(frame[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]


def _trust(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    """(H, W) weight in 0..1: how well a pixel looks the same where the flow says that it went."""
    return torch.exp(-20.0 * (first - warp(second, flow)).abs().mean(dim=0)).clamp(min=1e-4)


def _splat_half(flow: Tensor, weight: Tensor) -> Tensor:
    """Carry each pixel's motion to where that pixel is half way, so that small fast things keep theirs.

    Where several land, the trusted ones win by weight; where none lands, the motion at the same place is
    used.
    """
    height, width = flow.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = columns + flow[0] / 2, rows + flow[1] / 2
    total = torch.zeros(3, height * width)
    carried = torch.stack([flow[0] * weight, flow[1] * weight, weight]).reshape(3, -1)
    for left, share_x in ((x.floor(), 1 - (x - x.floor())), (x.floor() + 1, x - x.floor())):
        for top, share_y in ((y.floor(), 1 - (y - y.floor())), (y.floor() + 1, y - y.floor())):
            inside = (left >= 0) & (left < width) & (top >= 0) & (top < height)
            index = (top.clamp(0, height - 1) * width + left.clamp(0, width - 1)).long().reshape(-1)
            total.index_add_(1, index, carried * (share_x * share_y * inside).reshape(-1))
    total = total.reshape(3, height, width)
    landed = total[2] > 1e-3
    return torch.where(landed, total[:2] / total[2].clamp(min=1e-6), flow)


def _along_contrast(frames: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, H, W): colours along the axis on which they differ most, grey keeping its contrast.

    Luma would do for most footage, but a green thing before a grey wall of the same luma would seem to stand
    still.
    """
    colours = frames.permute(1, 0, 2, 3).flatten(1).double()
    colours = colours - colours.mean(dim=1, keepdim=True)
    axis = torch.linalg.eigh(colours @ colours.T).eigenvectors[:, -1]
    axis = axis * torch.sign(axis.sum() + 1e-12)
    return ((axis @ colours) / math.sqrt(3)).reshape(frames.shape[0], *frames.shape[2:]).float()
