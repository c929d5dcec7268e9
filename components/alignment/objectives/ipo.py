"""IPO: a preference is to reach a margin, and no more than that."""

from __future__ import annotations

from torch import Tensor

from components.alignment.objectives.base import PairErrors, preference


def ipo(errors: PairErrors, beta: float) -> Tensor:
    """Return (preference - 1/2)^2, (P,). IPO, arXiv 2310.12036, eq. 17, on Diffusion-DPO's log ratios.

    The paper has (h - 1 / (2 tau))^2 of the difference h of log ratios; with tau = beta and preference =
    beta h this is it times beta^2, which moves no minimum and keeps the size of DPO's gradients.
    """
    return (preference(errors, beta) - 0.5).square()
