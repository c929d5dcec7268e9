"""The catalogue of dimensions: a module here that holds ``DIMENSIONS`` takes part; a new one is one file."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from components.evaluation import dimensions
from components.evaluation.dimensions.base import Dimension
from components.evaluation.dimensions.names import QUALITY, SEMANTIC

#: Of several that can measure the same thing, a pretrained model goes before the world's detector, and that
#: before what needs neither.
_PREFERRED = ("weights", "world", "pixels")


@cache
def catalogue() -> dict[str, tuple[Dimension, ...]]:
    """Return the providers of every dimension by name: VBench's in its order, quality first, then our own.

    A name may have several providers (a pretrained model, the miniature world's detector); they come in order
    of preference, and the first that can measure the clips at hand is the one used.
    """
    providers: list[Dimension] = []
    for module in pkgutil.iter_modules(dimensions.__path__):
        if module.name != "catalogue":
            module_name = f"{dimensions.__name__}.{module.name}"
            providers.extend(getattr(importlib.import_module(module_name), "DIMENSIONS", ()))
    providers.sort(key=lambda dimension: (dimension.group, _PREFERRED.index(dimension.needs)))
    names = dict.fromkeys([*QUALITY, *SEMANTIC, *(one.name for one in providers)])
    return {name: tuple(one for one in providers if one.name == name) for name in names}
