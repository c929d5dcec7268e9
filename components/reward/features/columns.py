"""Building blocks of a clip's statistics: what `handcrafted.py` and `relative.py` share.

A statistic is a (B,) column. Energies are taken to log(x + epsilon), so that a column is about as wide on
footage as on plain clips.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from components.video.filters import resize


def log(values: Tensor, epsilon: float = 1e-4) -> Tensor:
    """log(values + epsilon)."""
    return (values + epsilon).log()


def over_time(series: Tensor) -> list[Tensor]:
    """(B, T) -> mean, standard deviation, minimum and maximum of the clip, four (B,)."""
    return [series.mean(1), series.std(1, correction=0), series.amin(1), series.amax(1)]


def frame_mean(planes: Tensor) -> Tensor:
    """(..., H, W) -> (...)."""
    return planes.mean(dim=(-2, -1))


def clip_mean(values: Tensor) -> Tensor:
    """(B, ...) -> (B,), the mean of everything else."""
    return values.mean(dim=tuple(range(1, values.ndim)))


def second_difference(values: Tensor, dim: int = 1) -> Tensor:
    """x[i + 2] - 2 x[i + 1] + x[i] along an axis, which becomes shorter by 2."""
    last = values.shape[dim] - 2
    return values.narrow(dim, 2, last) - 2 * values.narrow(dim, 1, last) + values.narrow(dim, 0, last)


def shrunk(grey: Tensor, factor: int) -> Tensor:
    """(B, T, H, W) planes at 1 / factor of their size, by area."""
    return grey if factor == 1 else resize(grey, grey.shape[-2] // factor, grey.shape[-1] // factor)


def block_errors(
    before: Tensor, after: Tensor, reach: int, block: int
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Block matching: the mean absolute error of every block under every shift of up to `reach` px each way.

    Args:
        before, after: (N, H, W).
        block: side of a block in px.

    Returns:
        (S, N, H // block, W // block) errors, and the S shifts as (dx, dy), the middle one (0, 0).
    """
    height, width = before.shape[-2:]
    padded = F.pad(before[:, None], (reach,) * 4, mode="replicate")[:, 0]
    shifts = [(dx, dy) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    errors = []
    for dx, dy in shifts:
        moved = padded[:, reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        errors.append(F.avg_pool2d((moved - after).abs()[:, None], block)[:, 0])
    return torch.stack(errors), shifts
