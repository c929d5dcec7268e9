"""What every objective takes, and the figures of a pair that every objective logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairErrors:
    """Denoising errors (P,) of P pairs under shared noise and time, all with the same reduction.

    Attributes:
        winner: under the policy, with gradient.
        loser: under the policy, with gradient.
        reference_winner: under the reference, without.
        reference_loser: under the reference, without.
        overlap: inner products of the policy's residuals (prediction - target) of winner and loser, without
            gradient, reduced like the errors, which are the residuals' squared norms.
    """

    winner: Tensor
    loser: Tensor
    reference_winner: Tensor
    reference_loser: Tensor
    overlap: Tensor


#: Losses (P,) of pairs at a beta; no reduction over pairs, so that all processes' pairs have the same weight.
Objective = Callable[[PairErrors, float], Tensor]


def _reduce(products: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return products.flatten(1).mean(dim=1)
    if reduction == "sum":
        return products.flatten(1).sum(dim=1)
    raise ValueError(f"reduction {reduction!r}: mean or sum is allowed")


def denoising_error(prediction: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Return squared errors (B,) of predictions (B, ...), all other axes reduced by `mean` or `sum`."""
    return _reduce((prediction - target).square(), reduction)


def pair_errors(prediction: Tensor, reference: Tensor, target: Tensor, reduction: str) -> PairErrors:
    """Return the errors of P pairs from predictions (2 P, ...) whose first half are the winners'.

    Args:
        prediction: the policy's.
        reference: the reference policy's.
        target: what both should have predicted.
        reduction: `mean` or `sum` over all axes but the first.
    """
    policy, other = (denoising_error(value, target, reduction) for value in (prediction, reference))
    with torch.no_grad():
        winner, loser = (prediction - target).chunk(2)
        overlap = _reduce(winner * loser, reduction)
    pairs = len(overlap)
    return PairErrors(policy[:pairs], policy[pairs:], other[:pairs], other[pairs:], overlap)


def preference(errors: PairErrors, beta: float) -> Tensor:
    """Return the implicit preference (P,) for the winners: -(beta / 2) ((e_w - r_w) - (e_l - r_l)).

    e are the policy's errors and r the reference's. It is the sigmoid's argument in Diffusion-DPO (arXiv
    2311.12908, eq. 14), with its T * omega taken into beta.
    """
    return -0.5 * beta * ((errors.winner - errors.reference_winner) - (errors.loser - errors.reference_loser))


@torch.no_grad()
def diagnostics(errors: PairErrors, beta: float) -> dict[str, Tensor]:
    """Return per-pair figures (P,) to be averaged.

    Winner and loser have figures of their own, because a growing margin can hide a winner that gets worse.
    """
    margin = preference(errors, beta)
    return {
        "rewards/accuracies": (margin > 0).float(),
        "rewards/margins": margin,
        "saturated": (margin.abs() > 5).float(),
        "winner_error": errors.winner.detach(),
        "loser_error": errors.loser.detach(),
        "winner_above_reference": (errors.winner > errors.reference_winner).float(),
    }
