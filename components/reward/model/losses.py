"""Losses of the reward: correlation with a label where there is one, order inside a ladder everywhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def plcc_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """(1 - Pearson correlation) / 2 of scores[..., N] and labels[N], in 0..1, mean over the leading axes.

    (VQEG; as used by FAST-VQA, ECCV 2022)
    """
    x = scores - scores.mean(-1, keepdim=True)
    y = labels - labels.mean()
    correlation = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm()).clamp_min(1e-8)
    return 0.5 * (1.0 - correlation).mean()


def ladder_loss(scores: Tensor, levels: Tensor, weights: Tensor, margin: float) -> Tensor:
    """Weighted mean logistic loss of the pairs of each ladder, with a margin in proportion to the level gap.

    log(1 + exp(margin * gap / 5 - (s_better - s_worse))), the pairwise loss of RankNet (Burges et al. 2005)
    plus a margin. A pair one level apart counts half of a pair further apart.

    Args:
        scores: (..., N, K) one ladder per row; the mean over the leading axes.
        levels: (N, K) severity; lower is better. Pairs of equal level do not count.
        weights: (N, K, K) 0 for pairs that must not count (seen as equal), 1 normally.
        margin: in units of the score, for a gap of five levels.
    """
    gap = levels[:, None, :] - levels[:, :, None]  # (N, better, worse)
    counted = (gap > 0).to(scores.dtype) * weights * torch.where(gap > 1, 1.0, 0.5)
    pairs = F.softplus(margin * gap.clamp_min(0) / 5.0 - _differences(scores))
    return (pairs * counted).sum((-3, -2, -1)).mean() / counted.sum().clamp_min(1e-8)


def silence_loss(scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean square of the differences inside each ladder, for damage a score must not react to.

    Args:
        scores: (..., N, K) one ladder per row; the mean over the leading axes.
        weights: (N, K, K) which pairs count.
    """
    return (_differences(scores).square() * weights).sum((-3, -2, -1)).mean() / weights.sum().clamp_min(1e-8)


def _differences(scores: Tensor) -> Tensor:
    return scores[..., :, None] - scores[..., None, :]
