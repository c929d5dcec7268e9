"""What an earlier run of a benchmark left, so that it is not computed again."""

from __future__ import annotations

from pathlib import Path

from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.manifest import MANIFEST
from components.runtime.errors import InputError
from components.runtime.params import StepParams, digest


def is_done(folder: Path, params: StepParams) -> bool:
    """Whether a step's result is there.

    Raises:
        InputError: it is that of other settings.
    """
    if not (folder / MANIFEST).is_file():
        return False
    if open_artifact(folder).manifest.params_digest != digest(params):
        raise InputError(f"{folder}: was made with other settings; choose another --out or remove it")
    return True
