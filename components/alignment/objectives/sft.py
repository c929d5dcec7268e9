"""The winner's own denoising loss."""

from __future__ import annotations

from torch import Tensor

from components.alignment.objectives.base import PairErrors


def sft(errors: PairErrors, beta: float) -> Tensor:
    """Return e_w, (P,): training on winners alone. Beta plays no part."""
    return errors.winner
