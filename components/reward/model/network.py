"""The scoring network: an ensemble of small networks over a clip's statistics and, with a pretrained
backbone, over its features of fragments of the clip. No layer uses batch statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.reward.distortions import FAMILIES
from components.reward.model.backbone import Backbone
from components.reward.params import NetworkParams

#: The score, then one for each family of damage.
OUTPUTS = 1 + len(FAMILIES)


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
    """Statistics as a network can use them: in quantile bins, and once more as they are.

    Each column becomes `bins` numbers: how far the value has passed through each bin, 0 to 1 (piecewise
    linear encoding, Gorishniy et al. 2022), here scaled to -1..1. So thresholds cost the network nothing, and
    an outlier counts no more than "beyond the last". The last number is the value in standard deviations, at
    most 3: differences of columns, which are ratios of energies, need it.
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
        knots = torch.quantile(picked, share, dim=0).T
        self.mean.copy_(picked.mean(0))
        self.deviation.copy_(picked.std(0, unbiased=False) + 1e-4)
        # Equal quantiles of an often constant column would turn rounding errors into steps.
        least = 0.01 * picked.std(0, unbiased=False) + 1e-4
        for k in range(1, knots.shape[1]):
            knots[:, k] = torch.maximum(knots[:, k], knots[:, k - 1] + least)
        self.knots.copy_(knots)

    def forward(self, statistics: Tensor) -> Tensor:
        """(B, F) -> (B, F * bins + F)."""
        low, high = self.knots[:, :-1], self.knots[:, 1:]
        passed = ((statistics[:, :, None] - low) / (high - low)).clamp(0.0, 1.0)
        plain = ((statistics - self.mean) / self.deviation).clamp(-3.0, 3.0)
        return torch.cat((2.0 * passed.flatten(1) - 1.0, plain), dim=1)


class TemporalHead(nn.Module):
    """One vector from a backbone's vectors of any number of time steps.

    Each step is compared with its neighbours (a convolution over three steps), then the steps are averaged
    with learned weights (attention pooling). Flicker and boiling are differences between neighbours, and a
    single bad moment must not drown in the mean. A transformer would need positions, hence a fixed length.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.reduce = nn.Linear(inputs, width)
        self.compare = nn.Linear(3 * width, width)
        self.weigh = nn.Linear(width, 1)
        self.norm = nn.LayerNorm(width)

    def fit(self, steps: Tensor) -> None:
        """Takes mean and deviation of every entry from (N, T, inputs).

        Most of a pretrained vector is common to all clips; damage changes little of it.
        """
        flat = steps.float().flatten(0, 1)
        deviation = flat.std(0, unbiased=False)
        self.mean.copy_(flat.mean(0))
        self.deviation.copy_(deviation.clamp_min(0.1 * float(deviation.mean()) + 1e-6))

    def forward(self, steps: Tensor) -> Tensor:
        """(B, T, inputs) -> (B, width)."""
        x = self.reduce((steps - self.mean) / self.deviation)
        around = torch.cat((torch.cat((x[:, :1], x[:, :-1]), 1), x, torch.cat((x[:, 1:], x[:, -1:]), 1)), 2)
        x = x + F.gelu(self.compare(around))
        return self.norm((x * self.weigh(x).softmax(1)).sum(1))


class RewardNet(nn.Module):
    """Scores clips, once by every member.

    Every member reads the clip's statistics, and with a backbone its features too. Both are needed: fragments
    keep the pixels but show a part of the frame and at most `canvas.frames` frames; the statistics cover the
    whole frame and every frame.
    """

    def __init__(self, params: NetworkParams, statistics: int, backbone: Backbone | None = None) -> None:
        """Args:
        params: sizes.
        statistics: number of columns that `clip_statistics` gives.
        backbone: the model that `params.backbone` names, loaded; shared by all members.
        """
        super().__init__()
        self.params = params
        self.coding = Coding(statistics, params.bins)
        members, hidden, width = params.members, params.hidden, params.embedding
        seen = width if backbone is not None else 0
        self.first = Packed(members, statistics * (params.bins + 1) + seen, hidden)
        self.second = Packed(members, hidden, width)
        self.third = Packed(members, width, width)
        self.head = Packed(members, width, OUTPUTS)
        self.dropout = nn.Dropout(params.dropout)
        self.backbone, self.temporal = backbone, None
        if backbone is not None:
            self.temporal = TemporalHead(backbone.width, width)
            backbone.requires_grad_(params.backbone_rate > 0)

    @property
    def statistics(self) -> int:
        """Number of columns that it reads."""
        return int(self.coding.knots.shape[0])

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that a training changes, by name: all but those of a frozen backbone."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def own_state(self) -> dict[str, Tensor]:
        """Weights and buffers without the backbone's."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `own_state` gave.

        Raises:
            RuntimeError: another network's.
        """
        backbone = {k: v for k, v in self.state_dict().items() if k.startswith("backbone.")}
        self.load_state_dict({**backbone, **state})

    def train(self, mode: bool = True) -> Self:
        """As of any module, but a frozen backbone stays as in scoring."""
        super().train(mode)
        if self.backbone is not None and not self.params.backbone_rate:
            self.backbone.eval()
        return self

    def forward(self, statistics: Tensor, views: Tensor | None = None) -> Tensor:
        """Score and aspects by every member, higher is better.

        Args:
            statistics: (B, F).
            views: (B, T, 3, H, W), `fragments` of the clips on the backbone's canvas; None without one.

        Returns:
            (M, B, 1 + families).
        """
        x = self.coding(statistics)
        if self.backbone is not None and self.temporal is not None:
            assert views is not None, "a network with a backbone needs its views of the clips"
            x = torch.cat((x, self.temporal(self.backbone(views))), dim=1)
        x = self.dropout(x)[None]
        x = self.dropout(F.gelu(self.first(x)))
        x = self.dropout(F.gelu(self.second(x)))
        x = F.gelu(self.third(x))
        return self.head(x)
