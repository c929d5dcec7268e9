"""The cross-type quality label of a distorted clip whose pristine original is known.

Inside a ladder the severity level is the truth and no label is needed. To set types against each other (and
for the
rank correlations of the card) one number is needed:

    quality = 1 - (1 - fidelity) / 2 - severity * visible / 2

- `fidelity` in 0..1 is a full-reference similarity: the geometric mean of multi-scale SSIM of luma,
gradient similarity,
  chroma similarity and the similarity of temporal differences. Being full-reference it knows exactly what
  was lost,
  but such measures underrate what moves (a shuffled clip keeps every frame) and local damage (an object
  that is gone).
- `severity` in 0..1 is the designed order: level / 5 for one distortion. It trusts the ladder where
fidelity is weak.
- `visible` = 1 - exp(-(1 - fidelity) / 0.01) is near 0 where the level changes nothing that can be seen (a
ghost of a
  still picture), and near 1 elsewhere.

Within a ladder the label never rises with the level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.reward.filtering import chroma, gaussian_blur, luma, resize

MS_WEIGHTS = (0.35, 0.40, 0.25)
"""Weights of the luma SSIM at full, half and quarter size."""
FIDELITY_WEIGHTS = {"structure": 0.4, "gradient": 0.2, "chroma": 0.1, "temporal": 0.3}
VISIBLE_LOSS = 0.01
"""Loss of fidelity at which a change begins to be seen."""
SEEN = 0.0012
"""Mean absolute difference in 0..1 below which two clips count as the same picture (a third of an 8-bit
step)."""


def _similar(a: Tensor, b: Tensor, constant: float) -> Tensor:
    return (2 * a * b + constant) / (a * a + b * b + constant)


def _ssim(a: Tensor, b: Tensor, sigma: float = 1.5, c1: float = 1e-4, c2: float = 9e-4) -> Tensor:
    """SSIM map (Wang et al. 2004) of (..., H, W) planes in 0..1, Gaussian window."""
    mean_a, mean_b = gaussian_blur(a, sigma), gaussian_blur(b, sigma)
    var_a = (gaussian_blur(a * a, sigma) - mean_a**2).clamp_min(0)
    var_b = (gaussian_blur(b * b, sigma) - mean_b**2).clamp_min(0)
    cov = gaussian_blur(a * b, sigma) - mean_a * mean_b
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return light * (2 * cov + c2) / (var_a + var_b + c2)


def _gradient(plane: Tensor) -> Tensor:
    dy = plane[..., 2:, 1:-1] - plane[..., :-2, 1:-1]
    dx = plane[..., 1:-1, 2:] - plane[..., 1:-1, :-2]
    return (dx * dx + dy * dy + 1e-8).sqrt()


def _pool(per_frame: Tensor) -> Tensor:
    """(B, T) -> (B,): half the mean, half the mean of the worst third: people remember the worst moments."""
    worst = per_frame.sort(dim=1).values[:, : max(1, per_frame.shape[1] // 3)]
    return 0.5 * per_frame.mean(1) + 0.5 * worst.mean(1)


@torch.no_grad()
def fidelity(reference: Tensor, distorted: Tensor) -> Tensor:
    """Full-reference similarity of clips, 1 for equal ones.

    Args:
        reference, distorted: (B, T, 3, H, W) float in 0..1.

    Returns:
        (B,) float32 in 0..1.
    """
    a, b = luma(reference), luma(distorted)
    structure = torch.zeros(a.shape[:2], device=a.device)
    for scale, weight in enumerate(MS_WEIGHTS):
        size = (max(8, a.shape[-2] >> scale), max(8, a.shape[-1] >> scale))
        small_a, small_b = (resize(plane, *size) if scale else plane for plane in (a, b))
        structure = structure + weight * _ssim(small_a, small_b).mean(dim=(-2, -1)).clamp(0, 1)
    gradient = _similar(_gradient(a), _gradient(b), 0.01).mean(dim=(-2, -1))
    wrong = have = torch.zeros_like(structure)
    for x, y in zip(chroma(reference), chroma(distorted), strict=True):
        wrong = wrong + (x - y).abs().mean(dim=(-2, -1))
        have = have + x.abs().mean(dim=(-2, -1)) + y.abs().mean(dim=(-2, -1))
    colour = 1.0 - wrong / (have + 0.02)
    step_a, step_b = (gaussian_blur(plane[:, 1:] - plane[:, :-1], 1.0) for plane in (a, b))
    wrong = (step_a - step_b).square().mean(dim=(-2, -1))
    energy = step_a.square().mean(dim=(-2, -1)) + step_b.square().mean(dim=(-2, -1))
    temporal = 1.0 - wrong / (energy + wrong + 4e-5)
    parts = {"structure": structure, "gradient": gradient, "chroma": colour, "temporal": temporal}
    log = torch.stack([w * _pool(parts[k]).clamp(1e-3, 1.0).log() for k, w in FIDELITY_WEIGHTS.items()])
    return log.sum(0).exp().float()


def severity(levels: Tensor, parts: int = 1) -> Tensor:
    """Designed severity in 0..1 of level 0..5; a composition of several parts is worse than any of them
    alone."""
    return 1.0 - (1.0 - levels.float() / 5.0) ** ((1 + parts) / 2)


def quality(similarity: Tensor, levels: Tensor, parts: int = 1) -> Tensor:
    """The label of one ladder per row.

    Args:
        similarity: (N, K) fidelity to the pristine original, in the order of `levels`.
        levels: (N, K) or (K,) severity levels, rising along K.
        parts: number of distortions in the ladder's recipe.

    Returns:
        (N, K) float32 in 0..1, falling along K.
    """
    lost = 1.0 - similarity
    visible = 1.0 - torch.exp(-lost / VISIBLE_LOSS)
    label = 1.0 - 0.5 * lost - 0.5 * severity(levels, parts) * visible
    return label.cummin(dim=1).values


def differs(a: Tensor, b: Tensor) -> Tensor:
    """(..., T, 3, H, W) x 2 -> (...) bool: whether two clips differ enough to be told apart at all."""
    return (a.float() - b.float()).abs().mean(dim=(-4, -3, -2, -1)) > SEEN
