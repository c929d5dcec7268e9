"""Artifacts: folders that are complete whenever they exist, and are checked whenever they are opened."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from components.runtime.artifacts import outputs
from components.runtime.artifacts.manifest import (
    MANIFEST,
    Manifest,
    parse_manifest,
    verify_files,
)
from components.runtime.errors import InputError, storage_failure
from components.runtime.io import s3, storage
from components.runtime.io.files import atomic_dir, sha256_file
from components.runtime.params import canonical_json

METRICS = "metrics.json"


@dataclass(frozen=True)
class Artifact:
    """An opened and verified artifact: `path` is a local folder."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of a file the manifest lists.

        Raises:
            InputError: if it lists no such file.
        """
        if name not in self.manifest.files:
            names = ", ".join(sorted(self.manifest.files))
            raise InputError(f"{self.path}: has no file {name}; it has {names}")
        return self.path / name

    def metrics(self) -> dict[str, float]:
        """The numbers of its metrics.json."""
        return {str(k): float(v) for k, v in json.loads(self.file(METRICS).read_text()).items()}


def open_artifact(uri: str | Path, *, step: str | None = None, allow_refused: bool = False) -> Artifact:
    """Open the artifact at `uri` (s3:// is brought to the local cache first) and check every file in it.

    Args:
        uri: folder, file:// or s3:// URI.
        step: the step it must have been made by.
        allow_refused: open a result even if its quality gate refused it.

    Raises:
        InputError: if it is missing, made by another step, refused, or a file is missing, truncated or
            altered.
    """
    how = f"; make it first: python -m components.{step} run" if step else ""
    text = storage.read_bytes(f"{str(uri).rstrip('/')}/{MANIFEST}")
    if text is None:
        path = None if storage.is_remote(uri) else storage.local_path(uri)
        if path is not None and path.is_dir():
            raise InputError(f"{uri}: not a finished artifact, it has no {MANIFEST}{how}")
        if path is not None and path.with_name(f"{path.name}.partial").is_dir():
            raise InputError(f"{uri}: not finished, only {path.name}.partial is there; run its command again")
        raise InputError(f"{uri}: no artifact there{how}")
    manifest = parse_manifest(text, f"{uri}/{MANIFEST}")
    if step is not None and manifest.step != step:
        raise InputError(f"{uri}: made by step {manifest.step}, but an artifact of step {step} is needed")
    if manifest.refused is not None and not allow_refused:
        raise InputError(f"{uri}: refused by its quality gate: {manifest.refused}")
    if storage.is_remote(uri):
        return Artifact(_fetched(str(uri), text, manifest), manifest)
    root = storage.local_path(uri)
    verify_files(root, manifest)
    return Artifact(root, manifest)


def input_digest(value: str | Path | Artifact) -> str:
    """What an input is, as one SHA-256: an artifact's own digest, else over its files' names and contents.

    Raises:
        InputError: if nothing is there.
    """
    if isinstance(value, Artifact):
        return value.manifest.digest
    text = storage.read_bytes(f"{str(value).rstrip('/')}/{MANIFEST}")
    if text is not None:
        return parse_manifest(text, f"{value}/{MANIFEST}").digest
    if storage.is_remote(value):
        content = [[f.name, f.size, f.etag] for f in storage.list_files(value)]
    else:
        path = storage.local_path(value)
        if path.is_file():
            return sha256_file(path)
        content = [[f.name, f.size, sha256_file(path / f.name)] for f in storage.list_files(path)]
    if not content:
        raise InputError(f"{value}: no such input, or nothing in it")
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def cache_dir() -> Path:
    """Where copies of remote artifacts live: ONLINEVPO_CACHE, else ~/.cache/onlinevpo."""
    return Path(os.environ.get("ONLINEVPO_CACHE") or Path.home() / ".cache" / "onlinevpo")


def local_folder(out: str | Path) -> Path:
    """The local folder that `out` is, or for an s3:// URI its copy in the cache."""
    if not storage.is_remote(out):
        return outputs.target_of(out)
    uri = str(out).rstrip("/")
    key = hashlib.sha256(f"{s3.endpoint()} {uri}".encode()).hexdigest()[:16]
    return cache_dir() / "artifacts" / f"{PurePosixPath(uri).name}-{key}"


def _fetched(uri: str, manifest_text: bytes, manifest: Manifest) -> Path:
    """The verified local copy of a remote artifact, downloaded unless the cache has exactly this one."""
    target = local_folder(uri)
    copy = target / MANIFEST
    if copy.is_file() and copy.read_bytes() == manifest_text:
        with contextlib.suppress(InputError):
            verify_files(target, manifest)
            return target
    try:
        with atomic_dir(target) as aside:
            storage.download_dir(uri, aside)
            verify_files(aside, manifest)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {os_reason(error)}; set ONLINEVPO_CACHE") from error
    return target


def os_reason(error: OSError) -> str:
    """What the operating system says, in a line that names the file."""
    return storage_failure(error) or f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")
