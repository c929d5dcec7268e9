"""The losses of preference pairs behind one interface."""

from components.alignment.objectives.base import (
    Objective,
    PairErrors,
    denoising_error,
    diagnostics,
    pair_errors,
    preference,
)
from components.alignment.objectives.losses import OBJECTIVES

__all__ = [
    "OBJECTIVES", "Objective", "PairErrors", "denoising_error", "diagnostics", "pair_errors", "preference",
]  # fmt: skip
