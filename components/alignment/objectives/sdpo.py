"""SDPO: DPO whose loser gradient is scaled so that it cannot hurt the winner."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from components.alignment.objectives.base import PairErrors, preference


@torch.no_grad()
def loser_scale(errors: PairErrors) -> Tensor:
    """Return lambda in 0..1, (P,): the largest share of the loser's gradient that leaves the winner no worse.

    A step along -(g_w - lambda g_l) changes the winner's error by -(|g_w|^2 - lambda g_w.g_l) to first order,
    which is not above 0 for lambda <= |g_w|^2 / g_w.g_l, and for every lambda where g_w.g_l <= 0. The
    gradients are those in the network's output, 2 (prediction - target), so the bound is the winner's error
    over the residuals' overlap. Diffusion-SDPO, arXiv 2511.03317 (safe coefficient in output space, without
    slack, at most 1). The guarantee is exact where winner and loser share the network's Jacobian, and an
    approximation elsewhere.
    """
    bound = errors.winner / errors.overlap.clamp_min(torch.finfo(errors.overlap.dtype).tiny)
    return torch.where(errors.overlap > 0, bound.clamp(max=1.0), 1.0)


def sdpo(errors: PairErrors, beta: float) -> Tensor:
    """Return DPO's losses (P,) with the loser's gradient times ``loser_scale``; the values are DPO's."""
    held = errors.loser.detach()
    loser = held + loser_scale(errors) * (errors.loser - held)
    scaled = PairErrors(errors.winner, loser, errors.reference_winner, errors.reference_loser, errors.overlap)
    return -F.logsigmoid(preference(scaled, beta))
