"""Natural scene statistics of pictures, as BRISQUE and NIQE read them.

Pristine pictures, locally normalised, have values that follow a generalised Gaussian, and products of
neighbouring values that follow an asymmetric one; damage changes the shapes. Formulas: Mittal, Moorthy and
Bovik 2012 (normalisation, products, the 36 features), Lasmar, Stitou and Berthoumieu 2009 (moment matching
of the asymmetric distribution), Mittal, Soundararajan and Bovik 2013 (features on patches).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

from components.video.filters import resize

WINDOW = 7
#: The local mean's Gaussian window, px.
SIGMA = 7 / 6
#: Added to the local deviation, on a scale of 0..255.
STABILISER = 1.0
#: Range of the shape parameter that is searched, in steps of .001 as is usual.
SHAPES = (0.2, 10.0)
#: Root mean square of normalised values below which a patch shows nothing but rounding.
FLAT = 1e-3
PER_SCALE = 18
#: Two scales.
FEATURES = 2 * PER_SCALE


@lru_cache(maxsize=64)
def _window(size: int) -> Tensor:
    """(size, size) float32: the Gaussian window along one axis; the edge pixel repeats beyond the border."""
    reach = WINDOW // 2
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size, size), np.float32)
    for row in range(size):
        for offset, weight in zip(offsets, weights, strict=True):
            matrix[row, min(max(row + int(offset), 0), size - 1)] += weight
    return torch.from_numpy(matrix)


def local_mean(plane: Tensor) -> Tensor:
    """The Gaussian window over (..., H, W)."""
    rows, columns = (_window(size).to(plane.device, plane.dtype) for size in plane.shape[-2:])
    return rows @ plane @ columns.T


def normalised(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Mean-subtracted, contrast-normalised luma, and the local deviation it was divided by.

    Args:
        grey: (..., H, W) float in 0..1.

    Returns:
        Two (..., H, W) tensors; the deviation in grey levels of 255.
    """
    plane = grey * 255.0
    # About the picture's own mean: squares of large values would leave a flat part no digits.
    plane = plane - plane.mean(dim=(-2, -1), keepdim=True)
    mean = local_mean(plane)
    deviation = (local_mean(plane * plane) - mean * mean).clamp_min(0.0).sqrt()
    return (plane - mean) / (deviation + STABILISER), deviation


def products(normal: Tensor) -> list[Tensor]:
    """Products of neighbours across, down and along both diagonals: (..., H, W) -> four smaller planes."""
    return [
        normal[..., :, :-1] * normal[..., :, 1:],
        normal[..., :-1, :] * normal[..., 1:, :],
        normal[..., :-1, :-1] * normal[..., 1:, 1:],
        normal[..., :-1, 1:] * normal[..., 1:, :-1],
    ]


def _ratio(shape: np.ndarray) -> np.ndarray:
    """E|x|^2 / E[x^2] of a generalised Gaussian; rises with its shape."""
    return np.exp(2 * gammaln(2 / shape) - gammaln(1 / shape) - gammaln(3 / shape))


@lru_cache(maxsize=1)
def _table() -> tuple[Tensor, Tensor]:
    shapes = np.arange(SHAPES[0], SHAPES[1] + 5e-4, 1e-3)
    return torch.from_numpy(shapes).float(), torch.from_numpy(_ratio(shapes)).float()


def _shape(ratio: Tensor) -> Tensor:
    """The shape whose E|x|^2 / E[x^2] is nearest, within SHAPES."""
    shapes, known = (part.to(ratio.device) for part in _table())
    place = torch.searchsorted(known, ratio.contiguous()).clamp(1, len(known) - 1)
    below = (ratio - known[place - 1]).abs() <= (known[place] - ratio).abs()
    return shapes[place - below.long()]


def generalised(values: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and variance of a generalised Gaussian about 0, by its moments: (..., n) -> two (...)."""
    power = values.square().mean(-1)
    return _shape(values.abs().mean(-1).square() / power.clamp_min(1e-12)), power


def asymmetric(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An asymmetric generalised Gaussian about 0, by its moments.

    Args:
        values: (..., n).

    Returns:
        Shape, and the mean square of the values below and above 0: three (...).
    """
    low, high = values.clamp_max(0.0), values.clamp_min(0.0)
    left = low.square().sum(-1) / (values < 0).sum(-1).clamp_min(1)
    right = high.square().sum(-1) / (values > 0).sum(-1).clamp_min(1)
    skew = (left.clamp_min(1e-12) / right.clamp_min(1e-12)).sqrt()
    ratio = values.abs().mean(-1).square() / values.square().mean(-1).clamp_min(1e-12)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
    return _shape(ratio), left, right


def _gamma(value: Tensor) -> Tensor:
    return torch.exp(torch.lgamma(value))


def _scales(shape: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale parameters below and above 0, and the mean."""
    unit = (_gamma(1 / shape) / _gamma(3 / shape)).sqrt()
    below, above = left.sqrt() * unit, right.sqrt() * unit
    return below, above, (above - below) * _gamma(2 / shape) / _gamma(1 / shape)


def brisque_features(normal: Tensor) -> Tensor:
    """The 18 features of one scale: (..., H, W) normalised values -> (..., 18).

    Shape and variance of the values; for each product mean, shape, and the mean squares below and above 0.
    """
    columns = list(generalised(normal.flatten(-2)))
    for product in products(normal):
        shape, left, right = asymmetric(product.flatten(-2))
        columns += [_scales(shape, left, right)[2], shape, left, right]
    return torch.stack(columns, dim=-1)


def niqe_features(normal: Tensor) -> Tensor:
    """The 18 features of one scale: (..., H, W) normalised values -> (..., 18); nan where nothing is shown.

    Shape and scale of the values; for each product shape, mean, and the scales below and above 0.
    """
    shape, power = generalised(normal.flatten(-2))
    columns = [shape, (power * _gamma(1 / shape) / _gamma(3 / shape)).sqrt()]
    for product in products(normal):
        shape, left, right = asymmetric(product.flatten(-2))
        below, above, mean = _scales(shape, left, right)
        columns += [shape, mean, below, above]
    flat = power.sqrt() < FLAT
    return torch.stack(columns, dim=-1).masked_fill(flat[..., None], float("nan"))


def halved(grey: Tensor) -> Tensor:
    """(B, T, H, W) luma at half the size, antialiased: the second scale."""
    return resize(grey, grey.shape[-2] // 2, grey.shape[-1] // 2, "bicubic")


def patches(plane: Tensor, side: int, step: int) -> Tensor:
    """(B, T, H, W) -> (B, T, P, side, side), row by row."""
    return plane.unfold(-2, side, step).unfold(-2, side, step).flatten(2, 3)
