"""Simple no-reference measures the trained reward must beat, computed in the same run on the same clips."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from components.reward.filtering import luma
from components.reward.statistics import naturalness


def laplacian_variance(frames: Tensor) -> Tensor:
    """Sharpness: variance of the luma's Laplacian, mean over frames. (B, T, 3, H, W) in 0..1 -> (B,)."""
    grey = luma(frames)
    ring = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
    return (ring - 4 * grey[..., 1:-1, 1:-1]).var(dim=(-2, -1)).mean(1)


def temporal_steadiness(frames: Tensor) -> Tensor:
    """Minus the mean square difference of neighbouring frames. (B, T, 3, H, W) in 0..1 -> (B,)."""
    return -(frames[:, 1:] - frames[:, :-1]).square().mean(dim=(1, 2, 3, 4))


@dataclass(frozen=True)
class NaturalnessDistance:
    """Distance from pristine clips in the space of locally normalised luma: NIQE's idea (Mittal et al.
    2013), per clip."""

    mean: Tensor
    precision: Tensor

    @classmethod
    def fit(cls, frames: Tensor) -> NaturalnessDistance:
        """Fits one Gaussian to pristine clips (N, T, 3, H, W) float in 0..1."""
        columns = torch.stack(naturalness(luma(frames)), dim=1).double()
        centred = columns - columns.mean(0)
        covariance = centred.T @ centred / max(1, len(columns) - 1)
        ridge = 1e-3 * torch.diag(covariance.diagonal() + 1e-6)
        return cls(columns.mean(0), torch.linalg.pinv(covariance + ridge))

    def score(self, frames: Tensor) -> Tensor:
        """Minus the Mahalanobis distance. (B, T, 3, H, W) in 0..1 -> (B,)."""
        apart = torch.stack(naturalness(luma(frames)), dim=1).double() - self.mean
        return -((apart @ self.precision) * apart).sum(1).clamp_min(0).sqrt().float()
