"""Checkpoints that outlive their machine: a copy of a step's checkpoints at ONLINEVPO_CHECKPOINTS.

A retried container starts on another node with an empty disk. Where ONLINEVPO_CHECKPOINTS names a folder or
an s3:// prefix, every checkpoint is copied there as soon as it is written, and an attempt that finds none on
its own disk fetches them first. They lie under a key made of the step, its params and its inputs, so that
only the same work finds them, and are removed when the work is done.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from components.runtime.errors import InputError, one_line
from components.runtime.io import storage

VARIABLE = "ONLINEVPO_CHECKPOINTS"

_open: list[Mirror] = []


class Mirror:
    """The copy of folder `dir` under `<ONLINEVPO_CHECKPOINTS>/<key>`; does nothing where that is not set."""

    def __init__(self, dir: Path, key: str) -> None:
        root = os.environ.get(VARIABLE, "").rstrip("/")
        self.dir, self.uri = Path(dir), f"{root}/{key}" if root else ""
        self._kept: dict[str, tuple[int, int]] | None = None

    def __bool__(self) -> bool:
        return bool(self.uri)

    def restore(self) -> bool:
        """Fetch the copy into `dir`, which holds nothing of value; says whether there was any.

        Raises:
            InputError: if the place cannot be reached or a file arrives damaged.
        """
        if not self.uri:
            return False
        if not storage.list_files(self.uri):
            return False
        if storage.is_remote(self.uri):
            storage.download_dir(self.uri, self.dir)
        else:
            shutil.copytree(storage.local_path(self.uri), self.dir, dirs_exist_ok=True)
        print(f"checkpoints of an earlier attempt found at {self.uri}", file=sys.stderr)
        return True

    def save(self) -> None:
        """Copy what is new or changed, oldest first, then remove what `dir` no longer has.

        A checkpoint's older sibling goes only after the newer one has arrived whole: whenever this is cut
        short, a complete checkpoint remains.

        Raises:
            InputError, OSError: if the place cannot be written.
        """
        if not self.uri:
            return
        now = _visible(self.dir)
        if self._kept is None:
            self._kept = {file.name: (-1, -1) for file in storage.list_files(self.uri)}
        for name, stamp in sorted(now.items(), key=lambda item: (item[1][1], item[0])):
            if self._kept.get(name) != stamp:
                storage.write_file(self.dir / name, f"{self.uri}/{name}")
                self._kept[name] = stamp
        gone = sorted(set(self._kept) - set(now))
        storage.remove(self.uri, gone)
        for name in gone:
            del self._kept[name]

    def drop(self) -> None:
        """Remove the copy: the work is done. A failure only leaves files behind, and says so."""
        if not self.uri:
            return
        try:
            storage.remove(self.uri, [file.name for file in storage.list_files(self.uri)])
        except (InputError, OSError) as error:
            _warn(f"checkpoints are left at {self.uri}", error)

    def __enter__(self) -> Mirror:
        _open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _open.remove(self)


def saved(path: Path) -> None:
    """Tell that something under `path` was written: the mirror it lies in brings its copy up to date.

    A place that fails does not end hours of training: the step goes on with the copy it had, says so, and
    tries again at the next checkpoint.
    """
    for mirror in _open:
        if Path(path).resolve().is_relative_to(mirror.dir.resolve()):
            try:
                mirror.save()
            except (InputError, OSError) as error:
                _warn("the newest checkpoint is on this machine only", error)


def _visible(root: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time (ns) of every file under `root`, files still being written left out."""
    files = {}
    for path in root.rglob("*"):
        name = path.relative_to(root)
        if not any(part.startswith(".") for part in name.parts) and path.is_file():
            state = path.stat()
            files[name.as_posix()] = (state.st_size, state.st_mtime_ns)
    return files


def _warn(effect: str, error: Exception) -> None:
    print(f"warning: {effect}: {one_line(error)}", file=sys.stderr, flush=True)
