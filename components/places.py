"""Digests of what params name outside the project: prompts, footage, a base, weights, a gate file.

DVC compares the params' text, and Kubeflow's cache does so too. Neither sees that a file changed under the
same name. `python -m components digests` writes what lies there, so that a change counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from components.params import step_sections
from components.runtime.artifacts.artifact import cache_dir
from components.runtime.io import storage
from components.runtime.io.files import sha256_file, write_atomically
from components.runtime.params import canonical_json, places_in

#: Params that name a place, by section; the key's path within it.
PLACES: dict[str, tuple[str, ...]] = {
    section: keys
    for section, kind in step_sections().items()
    if (keys := tuple(".".join(path) for path, _, _ in places_in(kind)))
}
#: Seconds a file must have been left alone for its digest to be remembered: some clocks tick that slowly.
SETTLED_S = 2.0


def digests(tree: dict[str, Any]) -> dict[str, dict[str, str | None]]:
    """For each section, the digest of what each of its params names.

    None where a param names no place on this machine or in a store: nothing, or a model of the hub, which its
    revision pins.

    Args:
        tree: the resolved params, by section.

    Raises:
        InputError: a store cannot be reached.
    """
    with Remembered(cache_dir() / "digests.json") as remembered:
        return {
            section: {f"{section}.{key}": digest_of(_value(tree[section], key), remembered) for key in keys}
            for section, keys in PLACES.items()
        }


def digest_of(place: str | None, remembered: Remembered) -> str | None:
    """SHA-256 over the names and contents at a place; None where nothing is there.

    A store is asked for its own tags of the files instead of their contents. Hidden files do not count.

    Raises:
        InputError: the store cannot be reached.
    """
    if not place:
        return None
    single = storage.find_file(place)
    files = [single] if single else [file for file in storage.list_files(place) if not _hidden(file.name)]
    if storage.is_remote(place):
        content = [[file.name, file.size, file.etag] for file in files]
    else:
        path = storage.local_path(place)
        content = [
            [file.name, file.size, remembered.sha256(path if single else path / file.name)] for file in files
        ]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest() if content else None


class Remembered:
    """Digests of files by size, time and inode, so that footage of many gigabytes is read once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list[Any]] = {}
        self._used: dict[str, list[Any]] = {}

    def __enter__(self) -> Remembered:
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self._file.read_text(encoding="utf-8"))
            self._known = content if isinstance(content, dict) else {}
        return self

    def __exit__(self, *_: object) -> None:
        merged = {**self._known, **self._used}
        if merged == self._known:
            return
        with contextlib.suppress(OSError):  # without it the next run reads everything again, and that is all
            write_atomically(self._file, json.dumps(merged))

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file's bytes, hex."""
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        key = os.path.abspath(path)
        known = self._known.get(key)
        if isinstance(known, list) and known[:3] == state and len(known) == 4:
            return str(known[3])
        digest = sha256_file(path)
        if time.time() - stat.st_mtime > SETTLED_S:
            self._used[key] = [*state, digest]
        return digest


def _value(section: dict[str, Any], key: str) -> str | None:
    value: Any = section
    for part in key.split("."):
        value = value[part]
    return value if value is None else str(value)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
