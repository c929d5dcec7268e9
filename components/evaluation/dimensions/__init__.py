"""The catalogue of dimensions: a module here that holds ``DIMENSIONS`` takes part; a new one is one file."""

from __future__ import annotations

import importlib
import pkgutil

from components.evaluation.dimensions.base import Clips, Dimension

__all__ = ["Clips", "Dimension", "catalogue"]


def catalogue() -> dict[str, tuple[Dimension, ...]]:
    """Return the providers of every dimension by name, quality first.

    A name may have several providers (the miniature world's detector and a model whose weights are not here);
    the first that can measure the clips at hand is the one used.
    """
    found: list[Dimension] = []
    for module in pkgutil.iter_modules(__path__):
        found.extend(getattr(importlib.import_module(f"{__name__}.{module.name}"), "DIMENSIONS", ()))
    found.sort(key=lambda dimension: (dimension.group != "quality", dimension.measure is None))
    names = dict.fromkeys(dimension.name for dimension in found)
    return {name: tuple(d for d in found if d.name == name) for name in names}
