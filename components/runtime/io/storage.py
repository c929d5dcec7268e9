"""Places by URI: a local path, file:// or s3://, with whole folders as the unit."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file, sha256_file
from components.runtime.io.s3 import MISSING, client, explained, transfer

_UPLOADING = ".uploading.json"
_PROBE = re.compile(r"\.writable-[0-9a-f]{16}")


@dataclass(frozen=True)
class StoredFile:
    """A file under a URI: `name` relative to it with forward slashes, size in bytes, the store's own tag."""

    name: str
    size: int
    etag: str = ""


def is_remote(uri: str | Path) -> bool:
    """Whether `uri` is an s3:// place rather than a local one.

    Raises:
        InputError: for any other scheme than s3 and file.
    """
    text = str(uri)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return False
    if scheme not in ("s3", "file"):
        raise InputError(
            f"{text}: unknown kind of place `{scheme}://`; allowed: a path, file://, s3://bucket/prefix"
        )
    return scheme == "s3"


def local_path(uri: str | Path) -> Path:
    """The path that a plain path or a file:// URI names.

    Raises:
        InputError: a file:// URI of another machine; `file://a/b` names b on machine a.
    """
    text = str(uri)
    if not text.startswith("file://"):
        return Path(uri)
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise InputError(
            f"{text}: names a file of machine {parts.netloc!r}; the form is file:///absolute/path"
        )
    return Path(unquote(parts.path))


def list_files(uri: str | Path) -> list[StoredFile]:
    """Every file under `uri`, at any depth, in order of name; [] where nothing is there.

    Raises:
        InputError: if the place cannot be reached or read.
    """
    return sorted(each_file(uri), key=lambda file: file.name)


def each_file(uri: str | Path) -> Iterator[StoredFile]:
    """The files under `uri` as they are found, in no order; `list_files` for those who want all of them."""
    if not is_remote(uri):
        root = local_path(uri)
        for path in root.rglob("*"):
            if path.is_file():
                yield StoredFile(path.relative_to(root).as_posix(), path.stat().st_size)
        return
    bucket, prefix = _split(uri)
    start = f"{prefix}/" if prefix else ""
    with explained(uri):
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
        for page in pages:
            for item in page.get("Contents", []):
                name = item["Key"].removeprefix(start)
                if name and not name.endswith("/"):
                    yield _stored(name, item)


def find_file(uri: str | Path) -> StoredFile | None:
    """The one file at `uri`, its name as its own; None where there is none.

    Raises:
        InputError: if the place cannot be reached or read.
    """
    if not is_remote(uri):
        path = local_path(uri)
        return StoredFile(path.name, path.stat().st_size) if path.is_file() else None
    bucket, key = _split(uri)
    with explained(uri):
        listed = client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
    return next((_stored(PurePosixPath(key).name, item) for item in listed if item["Key"] == key), None)


def read_bytes(uri: str | Path, at_most: int | None = None) -> bytes | None:
    """The bytes of one (small) file, the first `at_most` where that is given, None where there is no file."""
    if not is_remote(uri):
        path = local_path(uri)
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            return stream.read(at_most)
    from botocore.exceptions import ClientError

    bucket, key = _split(uri)
    with explained(uri):
        try:
            return bytes(client().get_object(Bucket=bucket, Key=key)["Body"].read(at_most))
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in MISSING:
                return None
            raise


def write_file(src: Path, uri: str | Path) -> None:
    """Copy one file to `uri`, where it appears whole or not at all.

    Raises:
        InputError: if the store cannot be written.
        OSError: if a local place cannot.
    """
    if is_remote(uri):
        bucket, key = _split(uri)
        with explained(uri):
            _upload(src, bucket, key)
        return
    with atomic_file(local_path(uri)) as aside:
        shutil.copyfile(src, aside)


def remove(uri: str | Path, names: Iterable[str]) -> None:
    """Remove the files `names` under `uri` and folders left empty; one that is not there is no error."""
    if not is_remote(uri):
        root = local_path(uri)
        for name in names:
            (root / name).unlink(missing_ok=True)
            for folder in (root / name).parents:  # a store has no empty folders
                if folder == root.parent or not folder.is_dir() or any(folder.iterdir()):
                    break
                folder.rmdir()
        return
    bucket, prefix = _split(uri)
    with explained(uri):
        for name in names:
            client().delete_object(Bucket=bucket, Key=f"{prefix}/{name}" if prefix else name)


def download_dir(uri: str | Path, dest: Path) -> list[str]:
    """Copy every object under an s3:// prefix into `dest`; returns their names.

    Streams in parts, several at a time; each file's size, and its SHA-256 where the uploader recorded one,
    is checked.

    Raises:
        InputError: if nothing is there, keys are wrong, the place is out of reach, or a file arrives damaged.
    """
    bucket, prefix = _split(uri)
    files = list_files(uri)
    if not files:
        raise InputError(f"{uri}: nothing there (no object under this prefix)")
    for file in files:
        parts = PurePosixPath(file.name).parts
        if file.name.startswith("/") or ".." in parts or "\\" in file.name:
            raise InputError(f"{uri}: refuses to download an object with an unsafe name: {file.name!r}")
        target = dest / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        key = f"{prefix}/{file.name}" if prefix else file.name
        with explained(f"{str(uri).rstrip('/')}/{file.name}"):
            client().download_file(bucket, key, str(target), Config=transfer())
            recorded = client().head_object(Bucket=bucket, Key=key).get("Metadata", {}).get("sha256")
        if target.stat().st_size != file.size or (recorded and sha256_file(target) != recorded):
            raise InputError(f"{uri}/{file.name}: arrived damaged (size or SHA-256 differs); try again")
    return [file.name for file in files]


def fetch_file(uri: str, dest: Path) -> None:
    """Copy the one object at an s3:// `uri` to the local file `dest`, in parts, never as a whole in memory.

    Raises:
        InputError: if nothing is there, keys are wrong or the place is out of reach.
    """
    bucket, key = _split(uri)
    with explained(uri):
        client().download_file(bucket, key, str(dest), Config=transfer())


def upload_dir(
    src: Path, uri: str, last: str = "manifest.json", replaces: Collection[str] | None = None
) -> None:
    """Copy the files of `src` to an s3:// prefix, hidden ones left out, the file `last` at the very end.

    An older `last` is removed first and older files that `src` does not have are removed afterwards, so that
    a reader who finds `last` finds everything it speaks of, and a reader in between finds nothing rather than
    a mixture. Until the end, a list of what is written and what goes lies beside them: the next attempt
    knows by it what this one left.

    Args:
        src: a local folder.
        uri: the prefix.
        last: the file that makes the others count.
        replaces: names under `uri` that may be overwritten, and are removed where `src` does not have them.
            No other object is touched.

    Raises:
        InputError: if keys are wrong, the bucket is missing or out of reach, a file arrives with another
            size, or another object has the name of one of the files.
    """
    bucket, prefix = _split(uri)
    start = f"{prefix}/" if prefix else ""
    names = [
        f.name for f in list_files(src) if not any(p.startswith(".") for p in PurePosixPath(f.name).parts)
    ]
    held, ours = list_files(uri), {*(replaces or ()), _UPLOADING}
    taken = sorted({file.name for file in held} & set(names) - ours)
    if taken:
        raise InputError(f"{uri}/{taken[0]}: another object is there, and is not replaced; move it away")
    gone = sorted({f.name for f in held if f.name in ours or is_probe(f)} - {*names, _UPLOADING})
    known = json.dumps({"files": sorted({*names, *gone})}).encode()
    with explained(uri):
        client().put_object(Bucket=bucket, Key=start + _UPLOADING, Body=known)
        if last in ours:
            client().delete_object(Bucket=bucket, Key=start + last)
    for name in sorted(names, key=lambda n: (n == last, n)):
        path = src / name
        with explained(f"{uri.rstrip('/')}/{name}"):
            _upload(path, bucket, start + name)
            stored = client().head_object(Bucket=bucket, Key=start + name)["ContentLength"]
        if stored != path.stat().st_size:
            raise InputError(
                f"{uri}/{name}: the store kept {stored} bytes of {path.stat().st_size}; try again"
            )
    with explained(uri):
        for name in (*gone, _UPLOADING):
            client().delete_object(Bucket=bucket, Key=start + name)


def unfinished_upload(uri: str) -> set[str]:
    """The names that an upload to `uri` which did not come to its end was about to write or remove."""
    text = read_bytes(f"{uri.rstrip('/')}/{_UPLOADING}")
    try:
        return set() if text is None else {_UPLOADING, *map(str, json.loads(text)["files"])}
    except (ValueError, KeyError, TypeError):
        return set()  # not one of our lists


def is_probe(file: StoredFile) -> bool:
    """Whether `check_writable` wrote the file and did not come to remove it."""
    return file.size == 0 and _PROBE.fullmatch(file.name) is not None


def check_writable(uri: str) -> None:
    """Write and remove a tiny object under `uri`, so that wrong keys are found before the work, not after it.

    Its name is a random one: nobody else's object has it.

    Raises:
        InputError: if that is not possible.
    """
    bucket, prefix = _split(uri)
    name = f".writable-{secrets.token_hex(8)}"
    key = f"{prefix}/{name}" if prefix else name
    with explained(uri):
        client().put_object(Bucket=bucket, Key=key, Body=b"")
        client().delete_object(Bucket=bucket, Key=key)


def _stored(name: str, item: Any) -> StoredFile:
    return StoredFile(name, item["Size"], item.get("ETag", "").strip('"'))


def _upload(file: Path, bucket: str, key: str) -> None:
    recorded = {"Metadata": {"sha256": sha256_file(file)}}
    client().upload_file(str(file), bucket, key, ExtraArgs=recorded, Config=transfer())


def _split(uri: str | Path) -> tuple[str, str]:
    bucket, _, prefix = str(uri).removeprefix("s3://").partition("/")
    if not bucket:
        raise InputError(f"{uri}: no bucket named; the form is s3://bucket/prefix")
    return bucket, prefix.strip("/")
