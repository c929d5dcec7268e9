"""The losses of preference pairs, one file each behind one interface. A new one is a file in this folder."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from components.alignment.objectives.base import (
    Objective,
    PairErrors,
    denoising_error,
    diagnostics,
    pair_errors,
    preference,
)

#: Every objective by name: each file beside this one defines the objective of its own name.
OBJECTIVES: dict[str, Objective] = {
    name: getattr(import_module(f"{__name__}.{name}"), name)
    for name in sorted(path.stem for path in Path(__file__).parent.glob("*.py"))
    if name not in ("__init__", "base")
}

__all__ = [
    "OBJECTIVES", "Objective", "PairErrors", "denoising_error", "diagnostics", "pair_errors", "preference",
]  # fmt: skip
