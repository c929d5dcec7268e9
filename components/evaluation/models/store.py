"""Where weights lie, and models opened from there the first time something is measured with them.

A place is a folder, an s3:// prefix or the word ``hub``; under it, each set of weights is a folder of its own
name (`catalogue.WEIGHTS`), as ``weights fetch`` makes it. A folder copied by hand from the hub works as well,
as long as it holds safetensors.
"""

from __future__ import annotations

import hashlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from components.evaluation.models.catalogue import CARD, UNKNOWN, WEIGHTS, Weights
from components.evaluation.models.fetch import fetch
from components.runtime.artifacts.artifact import cache_dir
from components.runtime.artifacts.pretrained import mirrored
from components.runtime.errors import InputError, one_line
from components.runtime.io import storage
from components.runtime.io.files import file_lock

#: The place that is fetched on demand, where there is a network.
HUB = "hub"


class ModelStore:
    """The weights at one place.

    Args:
        place: a folder, an s3:// prefix, ``hub`` (fetched into this machine's cache when first needed), or ""
            for no weights at all.
        device: where models are put.
    """

    def __init__(self, place: str = "", device: torch.device | str = "cpu") -> None:
        self.place, self.device = place.rstrip("/"), torch.device(device)
        local = self.place not in ("", HUB) and not storage.is_remote(place)
        if local and not storage.local_path(place).is_dir():
            raise InputError(f"weights {place}: no such folder; allowed: one of `weights fetch`, s3://, hub")
        self._folders: dict[str, Path] = {}
        self._models: dict[str, Any] = {}

    def missing(self, name: str) -> str | None:
        """Why the weights ``name`` cannot be used, with what would help; None when they are there."""
        weights = WEIGHTS[name]
        needs = f"needs the weights of {weights.title}"
        if not self.place:
            return f"{needs}, which are not part of this installation; {_how(name)}"
        if self.place == HUB:
            try:
                self._folder(weights)
            except InputError as error:
                return f"{needs}, and they could not be fetched: {error}"
            return None
        held = {file.name: file.size for file in storage.list_files(f"{self.place}/{name}")}
        absent = [file for file in weights.files if not held.get(file)]
        if absent:
            return f"{needs}, and {self.place}/{name} lacks {', '.join(absent)}; {_how(name)}"
        return None

    def open(self, name: str) -> Any:
        """The model ``name``, loaded once.

        Raises:
            InputError: its weights are missing or cannot be read.
        """
        if name not in self._models:
            reason = self.missing(name)
            if reason is not None:
                raise InputError(f"{name}: {reason}")
            folder = self._folder(WEIGHTS[name])
            try:
                opened = pkgutil.resolve_name(WEIGHTS[name].opens).load(folder, self.device)
            except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
                reason = one_line(error)
                raise InputError(f"{folder}: the weights `{name}` cannot be opened: {reason}") from error
            self._models[name] = opened
        return self._models[name]

    def origin(self, name: str) -> str:
        """Where the weights in use come from, by their own card."""
        card = self._folder(WEIGHTS[name]) / CARD
        try:
            return str(json.loads(card.read_text(encoding="utf-8"))["origin"])
        except (OSError, ValueError, KeyError):
            return UNKNOWN

    def version(self, name: str) -> str:
        """What tells the weights in use from others under the same name: a digest of their card, or of the
        names, sizes and times of their files where there is none.
        """
        folder = self._folder(WEIGHTS[name])
        if (folder / CARD).is_file():
            return hashlib.sha256((folder / CARD).read_bytes()).hexdigest()
        stats = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
        state = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    def _folder(self, weights: Weights) -> Path:
        name = weights.name
        if name not in self._folders:
            if self.place == HUB:
                folder = cache_dir() / "weights" / name
                _fetched(weights, folder)
            elif storage.is_remote(self.place):
                folder = mirrored(f"{self.place}/{name}")
            else:
                folder = storage.local_path(self.place) / name
            self._folders[name] = folder
        return self._folders[name]


def _fetched(weights: Weights, folder: Path) -> None:
    """Fetch weights into the cache, unless they are there or another process is at it: then wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(folder.with_name(f".{folder.name}.lock")):
        if any(not (folder / file).is_file() for file in weights.files):
            fetch(weights.name, str(folder.parent))


def _how(name: str) -> str:
    return f"get them with `python -m components.evaluation weights fetch {name} --to DIR`, then name DIR"
