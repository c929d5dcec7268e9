"""The folder a step works in before its artifact is complete: who may use it, what an attempt left there."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.runtime.distributed import from_main, is_node_leader, wait_for_all
from components.runtime.errors import InputError
from components.runtime.mirror import VARIABLE, Mirror

CHECKPOINTS = ".checkpoints"
IDENTITY = ".identity.json"
_LOCK = ".lock"
_LOCK_PATIENCE_S = 10.0


def prepare(partial: Path, target: Path, identity: dict[str, Any], copy: Mirror) -> tuple[int, bool]:
    """Make the workspace ready: the handle that holds its lock, and whether an attempt left something."""
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: cannot be written: a file is in the place of the folder")
    fresh = not partial.exists()
    partial.mkdir(parents=True, exist_ok=True)
    lock = _locked(partial)
    try:
        attempt = 1
        try:
            known = json.loads((partial / IDENTITY).read_text())
            attempt = known.pop("attempt") + 1
            known.pop("mark", None)
        except (OSError, ValueError, KeyError):
            known = None
        if known != identity:
            attempt = 1
            clear(partial)
        (partial / CHECKPOINTS).mkdir(exist_ok=True)
        if not any((partial / CHECKPOINTS).iterdir()):
            attempt += copy.restore()
        elif copy and _several_machines():
            copy.save()  # the other machines fetch what this one has
        aside = partial / f"{IDENTITY}.new"
        aside.write_text(json.dumps({**identity, "attempt": attempt, "mark": secrets.token_hex(8)}))
        aside.replace(partial / IDENTITY)
    except BaseException:
        if fresh:
            shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)
        raise
    return lock, attempt > 1


@contextmanager
def assisting(partial: Path, copy: Mirror) -> Iterator[bool]:
    """The workspace of a process that is not the main one; says whether an earlier attempt left something.

    Raises:
        InputError: if this machine does not share the main one's folder and cannot fetch the checkpoints.
    """
    text = from_main("")
    mine = partial / IDENTITY
    shared = not text or (mine.is_file() and mine.read_text() == text)
    if not shared and is_node_leader():
        shutil.rmtree(partial, ignore_errors=True)
        (partial / CHECKPOINTS).mkdir(parents=True)
        if json.loads(text)["attempt"] > 1:
            if not copy:
                raise InputError(
                    f"{partial}: not shared with the main process's machine; to resume an interrupted run "
                    f"over several machines set {VARIABLE} to a folder or s3:// prefix that all reach"
                )
            copy.restore()
    wait_for_all()
    try:
        yield json.loads(text or mine.read_text())["attempt"] > 1
    finally:
        if not shared and is_node_leader():
            shutil.rmtree(partial, ignore_errors=True)


def _several_machines() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _locked(partial: Path) -> int:
    """Lock the workspace against a second process; a killed process's lock ends with it."""
    handle = os.open(partial / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    patience = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            # Worker processes of a killed run hold its lock until they notice that it is gone.
            if time.monotonic() > patience:
                os.close(handle)
                raise InputError(f"{partial}: another process is at work here; wait for it to end") from None
            time.sleep(0.2)
        except OSError:
            return handle  # a file system without locks


def clear(folder: Path, hidden_only: bool = False) -> None:
    """Empty a folder, all but its lock, or only remove the hidden entries at its top."""
    for entry in folder.iterdir():
        if (hidden_only and not entry.name.startswith(".")) or (not hidden_only and entry.name == _LOCK):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def recover(target: Path) -> None:
    """Put back the artifact that a kill left between the two renames of a replacement."""
    previous = target.with_name(f"{target.name}.previous")
    if previous.is_dir() and not target.exists():
        previous.rename(target)


def give_back_space(partial: Path) -> str:
    """Clear a workspace on a full or failing disk, all but its checkpoints; says if there are some."""
    if not any((partial / CHECKPOINTS).glob("*")):
        shutil.rmtree(partial, ignore_errors=True)
        return ""
    for entry in partial.iterdir():
        if not entry.name.startswith("."):
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    return f"; checkpoints are kept in {partial}, the same command resumes"
