"""The scoring network: an ensemble of small networks over a clip's statistics. No batch statistics
anywhere."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.reward.distortions import FAMILIES
from components.reward.params import NetworkParams

OUTPUTS = 1 + len(FAMILIES)
"""The score, then one for each family of damage."""


class Packed(nn.Module):
    """One linear layer for each member of an ensemble, computed together."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(M or 1, B, inputs) -> (M, B, outputs)."""
        if x.shape[0] == 1:
            # One product for all members: their weights side by side.
            members, inputs, outputs = self.weight.shape
            wide = self.weight.transpose(0, 1).reshape(inputs, members * outputs)
            return (x[0] @ wide).reshape(-1, members, outputs).transpose(0, 1) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)


class Coding(nn.Module):
    """Statistics as a network can use them: cut into quantile bins, and once more as they are.

    Each column becomes `bins` numbers: how far the value has passed through each bin, 0 to 1 (piecewise
    linear encoding, Gorishniy et al. 2022), here brought to -1..1. Thresholds then cost the network nothing,
    and a wild value says no more than "beyond the last". The last number is the value in standard
    deviations, at most 3: differences of columns, which are ratios of energies, need it.
    """

    knots: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, statistics: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.linspace(0.0, 1.0, bins + 1).repeat(statistics, 1))
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("deviation", torch.ones(statistics))

    def fit(self, statistics: Tensor) -> None:
        """Takes quantiles, mean and deviation of every column from (N, F) training statistics."""
        share = torch.linspace(0.0, 1.0, self.knots.shape[1])
        picked = statistics[:: max(1, len(statistics) // 20_000)].cpu()
        found = torch.quantile(picked, share, dim=0).T
        self.mean.copy_(picked.mean(0))
        self.deviation.copy_(picked.std(0, unbiased=False) + 1e-4)
        # Equal quantiles of a column that is often constant would make a step out of rounding.
        least = 0.01 * picked.std(0, unbiased=False) + 1e-4
        for k in range(1, found.shape[1]):
            found[:, k] = torch.maximum(found[:, k], found[:, k - 1] + least)
        self.knots.copy_(found)

    def forward(self, statistics: Tensor) -> Tensor:
        """(B, F) -> (B, F * bins + F)."""
        low, high = self.knots[:, :-1], self.knots[:, 1:]
        passed = ((statistics[:, :, None] - low) / (high - low)).clamp(0.0, 1.0)
        plain = ((statistics - self.mean) / self.deviation).clamp(-3.0, 3.0)
        return torch.cat((2.0 * passed.flatten(1) - 1.0, plain), dim=1)


class RewardNet(nn.Module):
    """Scores clips by their statistics, once by every member."""

    def __init__(self, params: NetworkParams, statistics: int) -> None:
        """Args:
        params: sizes.
        statistics: number of columns that `clip_statistics` gives.
        """
        super().__init__()
        self.coding = Coding(statistics, params.bins)
        members, hidden, width = params.members, params.hidden, params.embedding
        self.first = Packed(members, statistics * (params.bins + 1), hidden)
        self.second = Packed(members, hidden, width)
        self.third = Packed(members, width, width)
        self.head = Packed(members, width, OUTPUTS)
        self.dropout = nn.Dropout(params.dropout)

    @property
    def statistics(self) -> int:
        """Number of columns that it reads."""
        return int(self.coding.knots.shape[0])

    def forward(self, statistics: Tensor) -> Tensor:
        """(B, F) -> (M, B, 1 + families): score and aspects by every member, higher is better."""
        x = self.dropout(self.coding(statistics))[None]
        x = self.dropout(F.gelu(self.first(x)))
        x = self.dropout(F.gelu(self.second(x)))
        x = F.gelu(self.third(x))
        return self.head(x)
