"""Losses by hand and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from components.reward.model.losses import ladder_loss, plcc_loss, silence_loss


def test_plcc_loss_is_scipys_pearson() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40), rng.normal(size=40)
    expected = 0.5 * (1 - stats.pearsonr(x, y).statistic)
    assert float(plcc_loss(torch.tensor(x), torch.tensor(y))) == pytest.approx(expected, abs=1e-9)
    line = torch.arange(5.0)
    assert float(plcc_loss(3 * line - 7, line)) == pytest.approx(0.0, abs=1e-6)
    assert float(plcc_loss(-line, line)) == pytest.approx(1.0, abs=1e-6)


def test_plcc_loss_of_a_constant_is_finite() -> None:
    scores = torch.zeros(5, requires_grad=True)
    plcc_loss(scores, torch.arange(5.0)).backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


def test_ladder_loss_by_hand() -> None:
    scores = torch.tensor([[2.0, 1.0, 3.0]])
    levels = torch.tensor([[0.0, 1.0, 3.0]])
    weights = torch.ones(1, 3, 3)

    def soft(x: float) -> float:
        return math.log1p(math.exp(x))

    margin = 1.0
    terms = [  # (lead of the better, gap, weight)
        (2.0 - 1.0, 1, 0.5),
        (2.0 - 3.0, 3, 1.0),
        (1.0 - 3.0, 2, 1.0),
    ]
    expected = sum(w * soft(margin * gap / 5 - lead) for lead, gap, w in terms) / 2.5
    assert float(ladder_loss(scores, levels, weights, margin)) == pytest.approx(expected, rel=1e-6)


def test_ladder_loss_leaves_out_unseen_and_equal_levels() -> None:
    scores = torch.tensor([[0.0, 5.0, 9.0]], requires_grad=True)
    levels = torch.tensor([[0.0, 0.0, 2.0]])
    weights = torch.ones(1, 3, 3)
    weights[0, 0, 2] = 0.0
    loss = ladder_loss(scores, levels, weights, 0.0)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[0, 0] == 0.0 and scores.grad[0, 2] > 0 > scores.grad[0, 1]
    assert float(ladder_loss(scores.detach(), levels * 0, weights, 0.0)) == 0.0


def test_losses_of_an_ensemble_are_the_means_of_its_members() -> None:
    stream = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(3, 4, 5, generator=stream), torch.rand(20, generator=stream)
    levels = torch.arange(5.0).expand(4, 5)
    weights = (torch.rand(4, 5, 5, generator=stream) > 0.3).float()
    each = [float(ladder_loss(member, levels, weights, 1.5)) for member in scores]
    assert float(ladder_loss(scores, levels, weights, 1.5)) == pytest.approx(np.mean(each), rel=1e-5)
    each = [float(plcc_loss(member.flatten(), labels)) for member in scores]
    assert float(plcc_loss(scores.flatten(1), labels)) == pytest.approx(np.mean(each), rel=1e-5)


def test_silence_is_the_mean_square_difference_of_the_pairs_that_count() -> None:
    scores = torch.tensor([[1.0, 3.0, 4.0], [0.0, 7.0, 7.0]])
    weights = torch.zeros(2, 3, 3)
    weights[0, 0, 1] = weights[0, 1, 2] = weights[1, 1, 2] = 1.0
    assert float(silence_loss(scores, weights)) == pytest.approx((4.0 + 1.0 + 0.0) / 3)
    assert float(silence_loss(scores, weights * 0)) == 0.0
