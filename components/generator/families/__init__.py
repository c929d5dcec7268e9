"""Model families: one file each behind one interface. A new one is a file in this folder."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from components.generator.families.base import LORA_FOLDER, WEIGHTS_FOLDER, MemoryHints, ModelFamily
from components.runtime.errors import InputError


def _found() -> dict[str, type[ModelFamily]]:
    """Import every file beside this one and list the families they define by their pipeline's class."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem != "__init__":
            import_module(f"{__name__}.{path.stem}")
    return {family.pipeline_class: family for family in ModelFamily.__subclasses__()}


#: Every family by the pipeline class it serves.
FAMILIES: dict[str, type[ModelFamily]] = _found()


def family_of(pipeline_class: str, where: object) -> type[ModelFamily]:
    """Return the family that serves a pipeline class.

    Raises:
        InputError: none does; the message begins with `where`.
    """
    try:
        return FAMILIES[pipeline_class]
    except KeyError:
        allowed = ", ".join(sorted(FAMILIES))
        raise InputError(f"{where}: pipeline {pipeline_class} is not supported; allowed: {allowed}") from None


__all__ = ["FAMILIES", "LORA_FOLDER", "WEIGHTS_FOLDER", "MemoryHints", "ModelFamily", "family_of"]
