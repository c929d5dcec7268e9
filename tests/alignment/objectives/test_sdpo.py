"""SDPO's promise: to first order no step makes the winner worse, and no more is taken from DPO than that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from components.alignment.objectives import Objective, pair_errors
from components.alignment.objectives.losses import dpo, loser_scale, sdpo
from tests.alignment.objectives.errors import errors


def winners_change(objective: Objective, seed: int) -> float:
    """How the winner's error changes, per unit of step, down the objective's gradient.

    Winner and loser share the network's Jacobian: their outputs are `A @ weights` plus a constant each.
    Their residuals point the same way and the loser's is mostly the longer one, where DPO hurts the winner.
    """
    draws = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    matrix = torch.linalg.qr(normal(8, 8)).Q  # orthonormal: inner products in output and weights agree
    shared, reference, target = normal(8), normal(2, 8), normal(2, 8)
    constants = target + torch.stack([shared, 1.5 * shared + normal(8)])
    weights = normal(8).requires_grad_()
    found = pair_errors(matrix @ weights + constants, reference, target, "mean")
    (down,) = torch.autograd.grad(objective(found, 5.0).sum(), weights, retain_graph=True)
    (winner,) = torch.autograd.grad(found.winner.sum(), weights)
    return -float(winner @ down)


def test_a_small_step_never_raises_the_winners_error() -> None:
    assert max(winners_change(sdpo, seed) for seed in range(200)) <= 1e-12
    # DPO itself does raise it in a good share of the same cases, or nothing would have been shown.
    assert sum(winners_change(dpo, seed) > 1e-6 for seed in range(200)) > 20


def test_where_dpo_does_no_harm_it_is_dpo() -> None:
    for seed in range(200):
        change = winners_change(dpo, seed)
        if change < 0:
            assert winners_change(sdpo, seed) == pytest.approx(change)


def test_the_scale_by_hand() -> None:
    pair = (0.2, 0.6, 0.4, 0.5)
    assert loser_scale(errors(pair, overlap=-0.3)).item() == 1.0
    assert loser_scale(errors(pair, overlap=0.0)).item() == 1.0
    assert loser_scale(errors(pair, overlap=0.1)).item() == 1.0
    assert loser_scale(errors(pair, overlap=0.3)).item() == pytest.approx(0.2 / 0.3)


def test_only_the_losers_gradient_is_scaled() -> None:
    found = {}
    for objective in (dpo, sdpo):
        pair = errors((0.2, 0.6, 0.4, 0.5), overlap=0.3, gradient=True)
        losses = objective(pair, 20.0)
        losses.sum().backward()
        assert pair.winner.grad is not None and pair.loser.grad is not None
        found[objective] = losses.item(), pair.winner.grad.item(), pair.loser.grad.item()
    assert found[sdpo][:2] == found[dpo][:2]
    assert found[sdpo][2] == pytest.approx(found[dpo][2] * 0.2 / 0.3)
