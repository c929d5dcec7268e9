"""The scoring network: two small branches, pixels and statistics, one number out. No batch statistics
anywhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.reward.params import NetworkParams


class PixelBranch(nn.Module):
    """Frames and their temporal differences, cut into patches by one strided convolution, pooled over space
    and time."""

    def __init__(self, params: NetworkParams) -> None:
        super().__init__()
        wide = params.channels
        # A kernel of twice the stride sees the seams between patches, where a latent grid shows.
        self.patches = nn.Conv2d(6, wide, 2 * params.patch, stride=params.patch, padding=params.patch // 2)
        self.shrink = nn.Conv2d(wide, 2 * wide, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(2 * wide, 2 * wide, 3, padding=1)
        self.norm = nn.LayerNorm(3 * 4 * wide)
        self.out = nn.Linear(3 * 4 * wide, params.embedding)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) float 0..1 -> (B, embedding)."""
        batch, time = frames.shape[:2]
        step = frames[:, 1:] - frames[:, :-1]
        step = torch.cat((step[:, :1], step), dim=1)
        x = torch.cat((frames - 0.5, 4.0 * step), dim=2).flatten(0, 1)
        x = F.gelu(self.patches(x))
        x = F.gelu(self.shrink(x))
        x = x + F.gelu(self.mix(x))
        pooled = torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1).reshape(batch, time, -1)
        spread = (pooled - pooled.mean(1, keepdim=True)).square().mean(1).add(1e-6).sqrt()
        summary = torch.cat((pooled.mean(1), spread, pooled.amax(1)), dim=1)
        return self.out(self.norm(summary))


class StatisticsBranch(nn.Module):
    """Statistics cut into quantile bins, then two dense layers.

    Each column becomes `bins` numbers: how far the value has passed through each bin, 0 to 1 (piecewise
    linear encoding,
    Gorishniy et al. 2022). Thresholds then cost the network nothing, and a wild value says no more than
    "beyond the last".
    """

    knots: Tensor

    def __init__(self, params: NetworkParams, statistics: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.linspace(0.0, 1.0, params.bins + 1).repeat(statistics, 1))
        self.layers = nn.Sequential(
            nn.Dropout(params.dropout),
            nn.Linear(statistics * params.bins, params.hidden),
            nn.GELU(),
            nn.Dropout(params.dropout),
            nn.Linear(params.hidden, params.embedding),
        )

    def fit_bins(self, statistics: Tensor) -> None:
        """Puts the knots of every column at quantiles of (N, F) training statistics."""
        share = torch.linspace(0.0, 1.0, self.knots.shape[1])
        picked = statistics[:: max(1, len(statistics) // 20_000)]
        found = torch.quantile(picked, share, dim=0).T
        # Equal quantiles of a column that is often constant would make a step out of rounding.
        least = 0.01 * picked.std(0, unbiased=False) + 1e-4
        for k in range(1, found.shape[1]):
            found[:, k] = torch.maximum(found[:, k], found[:, k - 1] + least)
        self.knots.copy_(found)

    def forward(self, statistics: Tensor) -> Tensor:
        """(B, F) -> (B, embedding)."""
        low, high = self.knots[:, :-1], self.knots[:, 1:]
        passed = ((statistics[:, :, None] - low) / (high - low)).clamp(0.0, 1.0)
        return self.layers(2.0 * passed.flatten(1) - 1.0)


class RewardNet(nn.Module):
    """Scores clips from their pixels and their statistics."""

    def __init__(self, params: NetworkParams, statistics: int) -> None:
        """Args:
        params: sizes.
        statistics: number of columns that `clip_statistics` gives.
        """
        super().__init__()
        self.pixels = PixelBranch(params)
        self.statistics = StatisticsBranch(params, statistics)
        self.head = nn.Sequential(
            nn.GELU(),
            nn.Dropout(params.dropout),
            nn.Linear(params.embedding, params.embedding),
            nn.GELU(),
            nn.Linear(params.embedding, 1),
        )
        # The pixel branch joins late in training and starts by saying nothing.
        nn.init.zeros_(self.pixels.out.weight)
        nn.init.zeros_(self.pixels.out.bias)

    def forward(self, frames: Tensor | None, statistics: Tensor) -> Tensor:
        """Args:
            frames: (B, T, 3, H, W) float in 0..1; None leaves the pixel branch out.
            statistics: (B, F) of the same clips.

        Returns:
            (B,) scores, higher is better.
        """
        joint = self.statistics(statistics)
        if frames is not None:
            joint = joint + self.pixels(frames)
        return self.head(joint).squeeze(1)
