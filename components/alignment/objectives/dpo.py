"""Diffusion-DPO."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from components.alignment.objectives.base import PairErrors, preference


def dpo(errors: PairErrors, beta: float) -> Tensor:
    """Return -log sigmoid(preference), (P,). Diffusion-DPO, arXiv 2311.12908, eq. 14.

    It only asks that the loser's error grows faster than the winner's: both may grow.
    """
    return -F.logsigmoid(preference(errors, beta))
