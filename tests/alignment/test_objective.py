"""The loss against the formula worked by hand, and its gradient against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from components.alignment.objective import PairErrors, denoising_error, diagnostics, dpo_argument, dpo_loss


def errors(*values: tuple[float, float, float, float], gradient: bool = False) -> PairErrors:
    columns = torch.tensor(values, dtype=torch.float64).T
    winner, loser, reference_winner, reference_loser = columns
    return PairErrors(
        winner.clone().requires_grad_(gradient),
        loser.clone().requires_grad_(gradient),
        reference_winner,
        reference_loser,
    )


def test_a_pair_by_hand() -> None:
    # d_w = .30 - .40 = -.10, d_l = .55 - .50 = +.05, beta 20: argument = -10 (-.10 - .05) = 1.5
    pair = errors((0.30, 0.55, 0.40, 0.50))
    assert dpo_argument(pair, 20.0).item() == pytest.approx(1.5)
    assert dpo_loss(pair, 20.0, 0.0).item() == pytest.approx(math.log1p(math.exp(-1.5)))
    assert dpo_loss(pair, 20.0, 0.5).item() == pytest.approx(math.log1p(math.exp(-1.5)) + 0.5 * 0.30)


def test_policy_equal_to_reference_is_undecided() -> None:
    pair = errors((0.3, 0.6, 0.3, 0.6))
    assert dpo_loss(pair, 150.0, 0.0).item() == pytest.approx(math.log(2.0))


def test_gradient_pulls_the_winner_down_and_pushes_the_loser_up() -> None:
    pair = errors((0.30, 0.55, 0.40, 0.50), gradient=True)
    dpo_loss(pair, 20.0, 0.0).sum().backward()
    # dL/d(argument) = -sigmoid(-argument); d(argument)/d(e_w) = -beta / 2
    expected = 10.0 / (1.0 + math.exp(1.5))
    assert pair.winner.grad is not None and pair.loser.grad is not None
    assert pair.winner.grad.item() == pytest.approx(expected)
    assert pair.loser.grad.item() == pytest.approx(-expected)


def test_gradient_against_finite_differences() -> None:
    reference = (torch.tensor([0.4, 0.2], dtype=torch.float64), torch.tensor([0.5, 0.3], dtype=torch.float64))

    def loss(winner: torch.Tensor, loser: torch.Tensor) -> torch.Tensor:
        return dpo_loss(PairErrors(winner, loser, *reference), 30.0, 0.2)

    start = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.35, 0.25], [0.45, 0.5])]
    assert torch.autograd.gradcheck(loss, tuple(start))


def test_reductions() -> None:
    prediction, target = torch.full((2, 3, 4), 3.0), torch.ones(2, 3, 4)
    assert denoising_error(prediction, target, "mean").tolist() == [4.0, 4.0]
    assert denoising_error(prediction, target, "sum").tolist() == [48.0, 48.0]
    with pytest.raises(ValueError, match="mean or sum"):
        denoising_error(prediction, target, "median")


def test_diagnostics_tell_winner_and_loser_apart() -> None:
    # The margin is right in both, but in the second the winner itself got worse.
    seen = diagnostics(errors((0.3, 0.6, 0.4, 0.5), (0.5, 0.9, 0.4, 0.5)), 100.0)
    assert seen["accuracy"].tolist() == [1.0, 1.0]
    assert seen["winner_above_reference"].tolist() == [0.0, 1.0]
    assert seen["saturated"].tolist() == [1.0, 1.0]
