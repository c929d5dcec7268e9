"""The catalogue of dimensions: a module here that holds ``DIMENSIONS`` takes part; a new one is one file."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from components.evaluation.dimensions.base import Clips, Dimension, LeftOut, Measured, Outcome, Video
from components.evaluation.vbench.totals import QUALITY, SEMANTIC

__all__ = ["Clips", "Dimension", "LeftOut", "Measured", "Outcome", "Video", "catalogue"]

#: Of several that can measure the same thing, the pretrained model goes before the world's detector and that
#: before what needs neither.
_PREFERRED = ("weights", "world", "pixels")


@cache
def catalogue() -> dict[str, tuple[Dimension, ...]]:
    """Return the providers of every dimension by name: VBench's in its order, quality first, then our own.

    A name may have several providers (a pretrained model, the miniature world's detector); they come in order
    of preference, and the first that can measure the clips at hand is the one used.
    """
    found: list[Dimension] = []
    for module in pkgutil.iter_modules(__path__):
        found.extend(getattr(importlib.import_module(f"{__name__}.{module.name}"), "DIMENSIONS", ()))
    found.sort(key=lambda dimension: (dimension.group, _PREFERRED.index(dimension.needs)))
    names = [*QUALITY, *SEMANTIC]
    names += [one.name for one in found if one.name not in names]
    return {name: tuple(one for one in found if one.name == name) for name in dict.fromkeys(names)}
