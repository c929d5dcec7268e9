"""Errors of pairs for the tests of objectives."""

from __future__ import annotations

import torch

from components.alignment.objectives import PairErrors


def errors(
    *values: tuple[float, float, float, float], overlap: float = 0.0, gradient: bool = False
) -> PairErrors:
    """Pairs of (winner, loser, reference's winner, reference's loser), float64, one overlap for all."""
    winner, loser, reference_winner, reference_loser = torch.tensor(values, dtype=torch.float64).T
    return PairErrors(
        winner.clone().requires_grad_(gradient),
        loser.clone().requires_grad_(gradient),
        reference_winner,
        reference_loser,
        torch.full_like(reference_winner, overlap),
    )
