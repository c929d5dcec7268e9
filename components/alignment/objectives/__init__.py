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


def _found() -> dict[str, Objective]:
    """Import every file beside this one: each defines the objective of its own name."""
    files = sorted(path.stem for path in Path(__file__).parent.glob("*.py"))
    names = [name for name in files if name not in ("__init__", "base")]
    return {name: getattr(import_module(f"{__name__}.{name}"), name) for name in names}


#: Every objective by name.
OBJECTIVES: dict[str, Objective] = _found()

__all__ = [
    "OBJECTIVES", "Objective", "PairErrors", "denoising_error", "diagnostics", "pair_errors", "preference",
]  # fmt: skip
