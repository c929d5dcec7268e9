"""The manifest: what an artifact is, what it was made from, and the digest of every file in it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from components.runtime.errors import InputError
from components.runtime.io.files import sha256_file
from components.runtime.params import canonical_json

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class FileEntry(BaseModel):
    """Size and digest of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bytes, hex")
    bytes: int = Field(ge=0, description="size in bytes")
    about_run: bool = Field(
        False, description="tells of the run (time, code version), not of its result; not part of the digest"
    )


class Manifest(BaseModel):
    """An artifact's manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION, description="version of this layout")
    step: str = Field(description="step that made the artifact")
    params: dict[str, Any] = Field(description="the step's params, complete")
    params_digest: str = Field(description="SHA-256 of the params as canonical JSON")
    inputs: dict[str, str] = Field(description="digest of each input by name")
    files: dict[str, FileEntry] = Field(description="every file by its path relative to the artifact")
    seed: int = Field(description="the run's seed")
    code_version: str = Field(description="git commit, or version named by the image")
    code_dirty: bool = Field(False, description="whether the checkout had uncommitted changes")
    libraries: dict[str, str] = Field(default_factory=dict, description="version of each library used")
    device: str = Field("", description="where it was computed, in words")
    processes: int = Field(1, ge=1, description="processes that computed it, each on one GPU or none")
    wall_seconds: float = Field(ge=0, description="seconds the finishing process took")
    created: str = Field(description="UTC time of publication, ISO 8601")
    refused: str | None = Field(None, description="why a quality gate refused this result; null if none did")

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
                raise ValueError(f"unsafe file name {name!r}")
        return files

    @property
    def digest(self) -> str:
        """SHA-256 of what the artifact is and came from, without time, machine and code version.

        Two runs of one code with the same params and inputs, on one device type, have the same digest.
        """
        kept = self.model_dump(mode="json", include={"schema_version", "step", "params_digest", "inputs"})
        kept["files"] = {
            name: {"sha256": entry.sha256, "bytes": entry.bytes}
            for name, entry in self.files.items()
            if not entry.about_run
        }
        return hashlib.sha256(canonical_json(kept).encode()).hexdigest()


def parse_manifest(text: bytes, where: str) -> Manifest:
    """The manifest in `text`.

    Raises:
        InputError: if it is damaged, or its params are not those it gives the digest of.
    """
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: damaged manifest: {at + ': ' if at else ''}{first['msg']}") from None
    digest = hashlib.sha256(canonical_json(manifest.params).encode()).hexdigest()
    if digest != manifest.params_digest:
        raise InputError(f"{where}: altered manifest: params do not match params_digest")
    return manifest


def verify_files(root: Path, manifest: Manifest) -> None:
    """Check every file under `root` against the manifest.

    Raises:
        InputError: naming the first file that is missing, has another size, or other bytes.
    """
    for name, entry in manifest.files.items():
        path = root / name
        if not path.is_file():
            raise InputError(f"{path}: missing, though {root / MANIFEST} lists it; make the artifact again")
        size = path.stat().st_size
        if size != entry.bytes:
            kind = "truncated" if size < entry.bytes else "altered"
            raise InputError(f"{path}: {kind}: {size} bytes, {entry.bytes} expected; make the artifact again")
        if sha256_file(path) != entry.sha256:
            raise InputError(
                f"{path}: altered: its SHA-256 is not the one in the manifest; make the artifact again"
            )


def entries_under(root: Path, about_run: Collection[str] = ()) -> dict[str, FileEntry]:
    """Size and digest of every file of an artifact being made, hidden files and manifest left out.

    Args:
        root: the artifact's folder.
        about_run: the files that tell of the run rather than of its result.
    """
    entries = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name == MANIFEST or any(part.startswith(".") for part in PurePosixPath(name).parts):
            continue
        if path.is_symlink():
            raise ValueError(f"{path}: an artifact holds files, not links")
        if path.is_file():
            entries[name] = FileEntry(
                sha256=sha256_file(path), bytes=path.stat().st_size, about_run=name in about_run
            )
    return entries
