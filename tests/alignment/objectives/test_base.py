"""Errors and their reductions, and the figures told of every pair."""

from __future__ import annotations

import pytest
import torch

from components.alignment.objectives import (
    OBJECTIVES,
    denoising_error,
    diagnostics,
    pair_errors,
    preference,
)
from tests.alignment.objectives.errors import errors


def test_reductions_by_hand() -> None:
    prediction, target = torch.full((2, 3, 4), 3.0), torch.ones(2, 3, 4)
    assert denoising_error(prediction, target, "mean").tolist() == [4.0, 4.0]
    assert denoising_error(prediction, target, "sum").tolist() == [48.0, 48.0]
    with pytest.raises(ValueError, match="mean or sum"):
        denoising_error(prediction, target, "median")


def test_errors_of_a_pair_by_hand() -> None:
    # Residuals: policy's winner (1, 2), loser (3, -1); the reference's (0, 2) and (1, 1).
    prediction = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    reference, target = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.zeros(2, 2)
    summed = pair_errors(prediction, reference, target, "sum")
    assert [summed.winner.item(), summed.loser.item()] == [5.0, 10.0]
    assert [summed.reference_winner.item(), summed.reference_loser.item()] == [4.0, 2.0]
    assert summed.overlap.item() == 1.0
    mean = pair_errors(prediction, reference, target, "mean")
    assert [mean.winner.item(), mean.loser.item(), mean.overlap.item()] == [2.5, 5.0, 0.5]


def test_only_the_policys_errors_carry_a_gradient() -> None:
    prediction = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = pair_errors(prediction, torch.zeros(4, 3), torch.ones(4, 3), "mean")
    assert found.winner.requires_grad and found.loser.requires_grad
    assert not (found.reference_winner.requires_grad or found.reference_loser.requires_grad)
    assert not found.overlap.requires_grad


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"sft"}))
def test_the_sum_is_the_mean_at_a_beta_times_the_elements(name: str) -> None:
    drawn = torch.randn(3, 6, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    by_sum = OBJECTIVES[name](pair_errors(*drawn, "sum"), 0.7)
    by_mean = OBJECTIVES[name](pair_errors(*drawn, "mean"), 0.7 * 10)
    assert by_sum.tolist() == pytest.approx(by_mean.tolist())


def test_preference_by_hand() -> None:
    assert preference(errors((0.30, 0.55, 0.40, 0.50)), 20.0).item() == pytest.approx(1.5)


def test_diagnostics_tell_winner_and_loser_apart() -> None:
    # The margin is right in both, but in the second the winner itself got worse.
    seen = diagnostics(errors((0.3, 0.6, 0.4, 0.5), (0.5, 0.9, 0.4, 0.5)), 100.0)
    assert seen["rewards/accuracies"].tolist() == [1.0, 1.0]
    assert seen["winner_above_reference"].tolist() == [0.0, 1.0]
    assert seen["saturated"].tolist() == [1.0, 1.0]
