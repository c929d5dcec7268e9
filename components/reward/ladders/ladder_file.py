"""Ladders as one safetensors file: their tensors, and their lists of names as JSON in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from components.reward.ladders.ladder import NAMES, TENSORS, Ladders
from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file


def write_ladders(path: Path, ladders: Ladders, extra: Mapping[str, Tensor]) -> None:
    """Writes ladders, and further tensors beside them, in one rename; pictures only where they were kept."""
    tensors = {name: getattr(ladders, name) for name in TENSORS} | dict(extra)
    if not ladders.has_frames:
        del tensors["frames"]
    about = {name: json.dumps(getattr(ladders, name)) for name in NAMES}
    with atomic_file(path) as aside:
        save_file({name: value.contiguous() for name, value in tensors.items()}, aside, about)


def read_ladders(path: Path, wrong: str) -> tuple[Ladders, dict[str, Tensor]]:
    """What `write_ladders` wrote: the ladders, and the further tensors.

    Args:
        wrong: the message for a file that holds something else.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    try:
        with safe_open(path, "pt") as opened:
            # Cloned: pages of a file that stays mapped would count as this process's memory.
            table = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
            about: dict[str, Any] = {name: json.loads(opened.metadata()[name]) for name in NAMES}
        about["recipes"] = [tuple(recipe) for recipe in about["recipes"]]
        table.setdefault("frames", torch.zeros((*table["levels"].shape, 0), dtype=torch.uint8))
        return Ladders(**{name: table.pop(name) for name in TENSORS}, **about), table
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {wrong} ({' '.join(str(error).split())})") from error
