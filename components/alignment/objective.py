"""The Diffusion-DPO loss and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def denoising_error(prediction: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Return squared errors (B,) of predictions (B, ...), all other axes reduced by ``mean`` or ``sum``."""
    squared = (prediction - target).square().flatten(1)
    if reduction == "mean":
        return squared.mean(dim=1)
    if reduction == "sum":
        return squared.sum(dim=1)
    raise ValueError(f"reduction {reduction!r}: mean or sum is allowed")


@dataclass(frozen=True)
class PairErrors:
    """Denoising errors (P,) of winners and losers.

    Under the policy (with gradient) and under the reference (without).
    """

    winner: Tensor
    loser: Tensor
    reference_winner: Tensor
    reference_loser: Tensor


def dpo_argument(errors: PairErrors, beta: float) -> Tensor:
    """Return the sigmoid's argument (P,): -(beta / 2) * ((e_w - e_w^ref) - (e_l - e_l^ref)).

    Diffusion-DPO, arXiv 2311.12908, eq. 14.
    """
    return -0.5 * beta * ((errors.winner - errors.reference_winner) - (errors.loser - errors.reference_loser))


def dpo_loss(errors: PairErrors, beta: float, winner_weight: float) -> Tensor:
    """Return per-pair losses (P,): -log sigmoid(argument) + winner_weight * e_w.

    The second term is the winner's own denoising loss: DPO alone is content when the loser gets worse
    faster than the winner.
    """
    return -F.logsigmoid(dpo_argument(errors, beta)) + winner_weight * errors.winner


@torch.no_grad()
def diagnostics(errors: PairErrors, beta: float) -> dict[str, Tensor]:
    """Return per-pair figures (P,) to be averaged.

    Winner and loser are told apart, because a growing margin can hide a winner that gets worse.
    """
    argument = dpo_argument(errors, beta)
    return {
        "accuracy": (argument > 0).float(),
        "margin": argument,
        "saturated": (argument.abs() > 5).float(),
        "winner_error": errors.winner.detach(),
        "loser_error": errors.loser.detach(),
        "winner_above_reference": (errors.winner > errors.reference_winner).float(),
    }
