"""Losses that were measured before, by the content of both clips.

One SQLite file in a folder: several processes may read and append at once, an append is atomic, and a
look-up reads only the rows asked for. Each row carries a checksum. Damaged rows, and a file that is no
database any more, are measured again and replaced.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from torch import Tensor

from components.runtime.errors import InputError, storage_failure
from components.runtime.io.files import file_lock

FILE = "labels.sqlite"
#: Seconds to wait for another process's append.
PATIENCE_S = 60.0
TABLE = "CREATE TABLE IF NOT EXISTS losses (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
#: Bytes of a row that are read; a longer one is damaged.
LONGEST = 1024

Losses = tuple[float, ...]


def clip_digest(clip: Tensor) -> bytes:
    """SHA-256 of a uint8 clip (T, 3, H, W): its shape and its bytes."""
    digest = hashlib.sha256(repr(tuple(clip.shape)).encode())
    digest.update(clip.contiguous().cpu().numpy().data)
    return digest.digest()


def pair_key(reference: bytes, distorted: bytes, version: str) -> bytes:
    """The key of a pair of clips, by their digests, under one version of the measures."""
    return hashlib.sha256(b"\0".join((version.encode(), reference, distorted))).digest()


class LabelCache:
    """Losses by key in `folder`, which is made if it is not there.

    Raises:
        InputError: the folder cannot be made, read or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.file = self.folder / FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"label cache {self.folder}: {error.strerror or error}") from error

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Losses]:
        """The rows of these keys, as far as they are there and whole."""
        rows: dict[bytes, Losses] = {}
        if not self.file.exists():
            return rows
        query = f"SELECT value FROM losses WHERE key = ? AND length(value) <= {LONGEST}"
        with self._mended(), closing(self._connect()) as base:
            base.execute(TABLE)
            for key in keys:
                for (value,) in base.execute(query, (key,)):
                    losses = _unpacked(key, value)
                    if losses is not None:
                        rows[key] = losses
        return rows

    def put(self, rows: Mapping[bytes, Sequence[float]]) -> None:
        """Appends rows, all or none of them; a row of the same key is replaced."""
        if not rows:
            return
        packed = [(key, _packed(key, losses)) for key, losses in rows.items()]
        for attempt in range(2):
            with self._mended(tolerate=attempt == 0), closing(self._connect()) as base, base:
                base.execute(TABLE)
                base.executemany("INSERT OR REPLACE INTO losses VALUES (?, ?)", packed)
                return

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.file, timeout=PATIENCE_S)

    @contextmanager
    def _mended(self, tolerate: bool = True) -> Iterator[None]:
        """Sets a damaged file aside; the caller goes on as if it were empty."""
        before = _identity(self.file)
        try:
            yield
        except sqlite3.OperationalError as error:
            raise InputError(f"label cache {self.file}: {storage_failure(error) or error}") from error
        except sqlite3.DatabaseError as error:
            if not tolerate:
                raise InputError(f"label cache {self.file}: {error}; remove it") from error
            self._set_aside(before)

    def _set_aside(self, before: tuple[int, int] | None) -> None:
        """Renames the damaged file, unless another process has done so already."""
        try:
            with file_lock(self.folder / f"{FILE}.lock"):
                if before is not None and _identity(self.file) == before:
                    os.replace(self.file, self.folder / f"{FILE}.damaged")
                    for tail in ("-journal", "-wal", "-shm"):
                        self.file.with_name(FILE + tail).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"label cache {self.folder}: {error.strerror or error}") from error


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _packed(key: bytes, losses: Sequence[float]) -> bytes:
    body = struct.pack(f"<{len(losses)}d", *losses)
    return body + struct.pack("<I", zlib.crc32(key + body))


def _unpacked(key: bytes, value: object) -> Losses | None:
    if not isinstance(value, bytes) or len(value) < 12 or (len(value) - 4) % 8:
        return None
    body, check = value[:-4], struct.unpack("<I", value[-4:])[0]
    if zlib.crc32(key + body) != check:
        return None
    return struct.unpack(f"<{len(body) // 8}d", body)
