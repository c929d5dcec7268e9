"""The folder a step works in before its artifact is complete: who may use it, what an attempt left there."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from components.runtime.artifacts.remote_checkpoints import VARIABLE, Mirror
from components.runtime.compute.distributed import from_main, is_node_leader, wait_for_all
from components.runtime.errors import InputError
from components.runtime.io.files import file_lock, write_atomically

CHECKPOINTS = ".checkpoints"
IDENTITY = ".identity.json"
LOCK = ".lock"
_LOCK_PATIENCE_S = 10.0


def prepare(partial: Path, identity: dict[str, Any], copy: Mirror, held: ExitStack) -> bool:
    """Lock the workspace and make it ready; says whether an earlier attempt left something in it.

    The caller has made sure that `partial` is a workspace or not there.

    Args:
        held: keeps the lock until it is closed.

    Raises:
        InputError: another process is at work there.
    """
    fresh = not partial.exists()
    partial.mkdir(parents=True, exist_ok=True)
    try:
        # Worker processes of a killed run hold its lock until they notice that it is gone.
        held.enter_context(file_lock(partial / LOCK, _LOCK_PATIENCE_S))
    except TimeoutError:
        raise InputError(f"{partial}: another process is at work here; wait for it to end") from None
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
        known = {**identity, "attempt": attempt, "mark": secrets.token_hex(8)}
        write_atomically(partial / IDENTITY, json.dumps(known))
    except BaseException:
        if fresh:
            discard(partial)
        held.close()
        raise
    return attempt > 1


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
        if partial.is_symlink() or (partial.exists() and not is_workspace(partial)):
            raise InputError(f"{partial}: in the way: it was not made by an earlier attempt; move it away")
        discard(partial)
        (partial / CHECKPOINTS).mkdir(parents=True)
        (partial / IDENTITY).write_text(text)
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
            discard(partial)


def _several_machines() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_workspace(folder: Path) -> bool:
    """Whether an attempt at a step made `folder`: its identity says so, or nothing else is in it yet."""
    if identity_of(folder):
        return True
    return all(
        entry.name == LOCK
        or entry.name.endswith(IDENTITY)  # cut short while it was written
        or (entry.name == CHECKPOINTS and _is_empty_dir(entry))
        for entry in folder.iterdir()
    )


def identity_of(folder: Path) -> dict[str, Any]:
    """What the workspace `folder` says of the work in it; {} where it does not say."""
    try:
        identity = json.loads((folder / IDENTITY).read_text())
    except (OSError, ValueError):
        return {}
    return identity if isinstance(identity, dict) and {"step", "params", "inputs"} <= identity.keys() else {}


def clear(workspace: Path) -> None:
    """Empty a workspace of all but its lock and its identity: cut short, it is a workspace all the same."""
    for entry in workspace.iterdir():
        if entry.name not in (LOCK, IDENTITY):
            _remove(entry)


def clear_hidden(published: Path) -> None:
    """Remove what a workspace had beside the result once it is published, its identity at the very end."""
    hidden = [entry for entry in published.iterdir() if entry.name.startswith(".")]
    for entry in sorted(hidden, key=lambda entry: entry.name == IDENTITY):
        _remove(entry)


def discard(workspace: Path) -> None:
    """Remove a workspace as far as that is possible, its identity at the very end."""
    with contextlib.suppress(OSError):
        clear(workspace)
        for name in (LOCK, IDENTITY):
            (workspace / name).unlink(missing_ok=True)
        workspace.rmdir()


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def _is_empty_dir(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def give_back_space(partial: Path) -> str:
    """Clear a workspace on a full or failing disk, all but its checkpoints; says if there are some."""
    if not any((partial / CHECKPOINTS).glob("*")):
        discard(partial)
        return ""
    for entry in partial.iterdir():
        if not entry.name.startswith("."):
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    return f"; checkpoints are kept in {partial}, the same command resumes"
