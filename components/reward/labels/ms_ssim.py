"""Full-reference fidelity of pictures: multi-scale SSIM of luma and of the two colour differences.

MS-SSIM as published (Wang, Simoncelli and Bovik 2003): an 11 x 11 Gaussian window of standard deviation 1.5
px, no padding; between scales the mean of 2 x 2 px; contrast and structure at every scale, luminance at the
coarsest only; each scale's mean to the power of its published weight.

Five scales need a short side of 161 px. Smaller frames use the finest scales whose window still fits, with
their published weights divided by their sum: 3 scales at 48 px, 2 at 32 px.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from components.runtime.errors import InputError
from components.video.filters import chroma, luma

#: Published exponents of the scales, finest first.
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
#: The Gaussian window, px.
WINDOW, SIGMA = 11, 1.5
#: The constants of SSIM for a dynamic range of 1.
C1, C2 = 0.01**2, 0.03**2
#: Lower bound of a scale's mean: negative structure (an inverted picture) has no real power.
LEAST = 1e-4
#: Mean absolute difference in 0..1 up to which two clips count as the same (a third of an 8-bit step).
SEEN = 0.0012


def scale_weights(height: int, width: int) -> tuple[float, ...]:
    """Weights of the scales that frames of this size in px have, finest first; they sum to 1.

    Raises:
        InputError: the frame is smaller than the window.
    """
    fitting = 0
    short = min(height, width)
    while fitting < len(WEIGHTS) and short >= WINDOW:
        fitting, short = fitting + 1, -(-short // 2)
    if not fitting:
        raise InputError(f"labels need frames of at least {WINDOW} x {WINDOW} px, got {height} x {width}")
    total = sum(WEIGHTS[:fitting])
    return tuple(weight / total for weight in WEIGHTS[:fitting])


@lru_cache(maxsize=64)
def _window(size: int) -> Tensor:
    """(size - 10, size) float64: the Gaussian window slid along one axis, without padding."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    rows = size - WINDOW + 1
    matrix = torch.zeros(rows, size, dtype=torch.float64)
    for row in range(rows):
        matrix[row, row : row + WINDOW] = weights / weights.sum()
    return matrix


def ssim_maps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps of SSIM (Wang et al. 2004); their product is SSIM.

    Args:
        a, b: (..., H, W) float in 0..1.

    Returns:
        Two (..., H - 10, W - 10) tensors.
    """
    rows, columns = (_window(size).to(a.device, a.dtype) for size in a.shape[-2:])

    def mean(plane: Tensor) -> Tensor:
        return rows @ plane @ columns.T

    mean_a, mean_b = mean(a), mean(b)
    variance = mean(a * a) + mean(b * b) - mean_a**2 - mean_b**2
    shared = mean(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return light, (2 * shared + C2) / (variance + C2)


def _halved(plane: Tensor) -> Tensor:
    """Mean of 2 x 2 px; an odd last row or column stands for itself."""
    height, width = plane.shape[-2:]
    small = F.avg_pool2d(plane.reshape(-1, 1, height, width), 2, ceil_mode=True, count_include_pad=False)
    return small.reshape(*plane.shape[:-2], *small.shape[-2:])


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale SSIM of (..., H, W) planes in 0..1 -> (...) in 0..1, 1 for equal ones."""
    weights = scale_weights(*a.shape[-2:])
    total = torch.ones(a.shape[:-2], dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(weights):
        light, structure = ssim_maps(a, b)
        last = scale == len(weights) - 1
        mean = (light * structure if last else structure).mean(dim=(-2, -1))
        total = total * mean.clamp_min(LEAST) ** weight
        if not last:
            a, b = _halved(a), _halved(b)
    return total


def structure_loss(reference: Tensor, distorted: Tensor) -> Tensor:
    """1 - MS-SSIM of luma: (B, T, 3, H, W) x 2 in 0..1 -> (B, T)."""
    return 1.0 - ms_ssim(luma(reference), luma(distorted))


def colour_loss(reference: Tensor, distorted: Tensor) -> Tensor:
    """1 - MS-SSIM of the blue and red differences, their mean: (B, T, 3, H, W) x 2 in 0..1 -> (B, T)."""
    pairs = zip(chroma(reference), chroma(distorted), strict=True)
    blue, red = (1.0 - ms_ssim(a + 0.5, b + 0.5) for a, b in pairs)
    return 0.5 * (blue + red)


def differs(a: Tensor, b: Tensor) -> Tensor:
    """(..., T, 3, H, W) x 2 -> (...) bool: whether two clips differ enough to be told apart at all."""
    return (a.float() - b.float()).abs().mean(dim=(-4, -3, -2, -1)) > SEEN
