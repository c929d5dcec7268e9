"""Local files made durable and known by digest."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

#: Marks a folder that is renamed away because a new one takes its place.
REPLACED = ".replaced"


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Push a file's or folder's data to the disk, where the file system knows how."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems refuse fsync on folders; a full disk is reported here and must
        # not pass.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


@contextmanager
def atomic_file(target: Path, mode: int = 0o666) -> Iterator[Path]:
    """A hidden file beside `target` for the block to write; at the end of the block it becomes `target`.

    A reader sees the old file or the whole new one. If the block raises, the old one stays. Missing parent
    folders are created.

    Args:
        target: the file to write.
        mode: permissions from the first byte on, less the umask.

    Raises:
        OSError: the folder cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{secrets.token_hex(4)}.{target.name}")  # some writers look at the suffix
    os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield aside
        fsync(aside)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def write_atomically(target: Path, content: str | bytes) -> None:
    """Write a file in one rename; see `atomic_file`."""
    with atomic_file(target) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_dir(target: Path, remove: Callable[[Path], object] = shutil.rmtree) -> Iterator[Path]:
    """An empty hidden folder beside `target` for the block to fill; at its end it becomes `target`.

    Nothing is left if the block raises. See `replace_dir`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        aside.chmod(0o755)
        yield aside
        replace_dir(aside, target, remove)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def file_lock(file: Path, timeout_s: float = -1.0) -> Iterator[None]:
    """Hold the lock `file` for the block; a killed process's lock ends with it.

    The file is created and stays. Where the file system has no locks, the block runs without one.

    Args:
        file: the lock file; its folder must exist.
        timeout_s: seconds to wait for another process; negative for no limit.

    Raises:
        TimeoutError: another process holds the lock.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file, timeout_s, fallback_to_soft=False)
    try:
        lock.acquire(poll_interval=0.1)
    except Timeout:
        raise
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()


def sort_safetensors_header(path: Path) -> None:
    """Rewrite a safetensors file with its header's keys in order; tensors and values stay as they are.

    The library writes the entries of `__metadata__` in an order that changes from process to process, so
    that equal weights would be different files.
    """
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of 8 bytes
    write_atomically(path, len(header).to_bytes(8, "little") + header + data[8 + size :])


def replace_dir(new: Path, target: Path, remove: Callable[[Path], object] = shutil.rmtree) -> None:
    """Make folder `new` appear as `target` in one rename; what was there before is given to `remove`.

    A reader sees the old folder or the new one, never a mixture. Where the kernel cannot exchange two
    folders in one call, the old one is marked and renamed away first, and `target` is absent for the moment
    between two renames; `previous_of` finds what a kill leaves then.

    Args:
        new: the folder, on the same file system.
        target: where it shall be. The caller has made sure that what is there may be replaced.
        remove: takes the old folder, which lies under another name by then.
    """
    if not target.exists():
        new.rename(target)
    elif _exchange(new, target):
        remove(new)
    else:
        aside = unused(target.with_name(f"{target.name}.previous"))
        (target / REPLACED).touch()
        try:
            target.rename(aside)
        except OSError as error:
            # A folder that came with a container image lies on another layer and cannot be renamed, only
            # removed.
            if error.errno != errno.EXDEV:
                raise
            remove(target)
            new.rename(target)
        else:
            new.rename(target)
            remove(aside)
    with contextlib.suppress(OSError):
        fsync(target.parent)


def previous_of(target: Path) -> list[Path]:
    """The folders that `replace_dir` renamed away from `target` and did not come to remove."""
    beside = target.parent.glob(f"{glob.escape(target.name)}.previous*")
    return sorted(folder for folder in beside if (folder / REPLACED).is_file())


def unused(path: Path) -> Path:
    """`path`, or where something has that name, `path` with the first free number behind it."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one system call (Linux renameat2); False where that is not to be had."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0
