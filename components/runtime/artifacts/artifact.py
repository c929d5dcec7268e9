"""Artifacts: folders that are complete whenever they exist, and are checked whenever they are opened.

A step works in `<out>.partial`. Only when it is done does that folder become `<out>`, in one rename. An
s3:// output is made in a local cache folder and uploaded at the end, its manifest last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from components.runtime.artifacts import outputs, provenance
from components.runtime.artifacts.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
    entries_under,
    parse_manifest,
    verify_files,
)
from components.runtime.artifacts.remote_checkpoints import Mirror
from components.runtime.artifacts.workspace import (
    CHECKPOINTS,
    IDENTITY,
    assisting,
    clear_hidden,
    discard,
    give_back_space,
    prepare,
)
from components.runtime.compute.distributed import from_main, is_main_process, wait_for_all, world_size
from components.runtime.errors import GateRefused, InputError, OnlineVPOError, storage_failure
from components.runtime.io import s3, storage
from components.runtime.io.files import atomic_dir, fsync, replace_dir, sha256_file
from components.runtime.params import StepParams, canonical_json, digest

__all__ = ["MANIFEST", "Artifact", "FileEntry", "Manifest", "Workspace", "open_artifact", "publish"]

METRICS = "metrics.json"

_listeners: list[Callable[[Path], None]] = []


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


@dataclass
class Workspace:
    """Where a step puts its files while it works."""

    dir: Path
    resumed: bool
    """Whether an earlier, unfinished attempt with the same params and inputs left something here."""
    publish_on_refusal: bool = False
    """Set before raising GateRefused to publish the result all the same, marked as refused."""
    about_run: set[str] = field(default_factory=set)
    """Files that tell of this run (timings, code version) and not of its result: the artifact's digest leaves
    them out, so that two runs that come to the same result have the same digest."""
    published: Path | None = field(default=None, init=False)
    """The finished artifact's local folder, once the `with` block has ended."""

    @property
    def checkpoints(self) -> Path:
        """Folder for checkpoints; kept with the workspace, not published."""
        return self.dir / CHECKPOINTS

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write metrics.json: flat names, finite numbers."""
        (self.dir / METRICS).write_text(
            json.dumps(_checked_metrics(metrics), indent=2, sort_keys=True) + "\n"
        )


@contextmanager
def publish(
    out: str | Path,
    *,
    step: str,
    params: StepParams,
    inputs: Mapping[str, str | Path | Artifact | None] | None = None,
) -> Iterator[Workspace]:
    """A workspace that becomes the artifact `out` when the block ends well.

    What is left behind when it does not: nothing after InputError or GateRefused (unless
    `workspace.publish_on_refusal`); everything after an interrupt, a kill or a bug, so that the same
    command resumes; checkpoints only after a full disk. A workspace left by other params or inputs is
    cleared. Among several processes the main one prepares and publishes; the others share its folder and
    wait at both ends. A process on a machine that does not share it has a folder of its own, which holds the
    same checkpoints (see `mirror`) and vanishes at the end.

    Raises:
        InputError: if `out` cannot be written, holds what is not ours (see `outputs`), or another process is
            writing it.
        RuntimeError: if the block ends without having written metrics.json.
    """
    began, device = time.monotonic(), _device(params)
    digests = {name: input_digest(value) for name, value in (inputs or {}).items() if value is not None}
    identity: dict[str, Any] = {"step": step, "params": digest(params), "inputs": digests}
    target, kind = _target(out), outputs.artifact_of(step)
    partial = target.with_name(f"{target.name}.partial")
    copy = Mirror(
        partial / CHECKPOINTS, f"{step}-{hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]}"
    )
    if not is_main_process():
        with assisting(partial, copy) as resumed:
            workspace = Workspace(partial, resumed=resumed)
            try:
                yield workspace
            except GateRefused:
                # Not before the main process has published: who starts them all ends all as soon as one ends.
                if workspace.publish_on_refusal:
                    wait_for_all()
                raise
            wait_for_all()
        workspace.published = target
        return

    held = contextlib.ExitStack()  # the workspace's lock
    try:
        if not storage.is_remote(out):
            outputs.recover(target, kind)
        outputs.check(out, kind, (inputs or {}).values())
        if storage.is_remote(out):
            storage.check_writable(str(out))
        resumed = prepare(partial, identity, copy, held)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {_os_reason(error)}") from error
    workspace = Workspace(partial, resumed=resumed)
    from_main((partial / IDENTITY).read_text())
    wait_for_all()

    def complete(refused: str | None = None) -> None:
        version, dirty = provenance.code_version()
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            step=step,
            params=params.model_dump(mode="json"),
            params_digest=identity["params"],
            inputs=digests,
            files=_finished_files(partial, step, workspace.about_run),
            seed=params.run.seed,
            code_version=version,
            code_dirty=dirty,
            libraries=provenance.library_versions(),
            device=device,
            processes=world_size(),
            wall_seconds=round(time.monotonic() - began, 3),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            refused=refused,
        )
        _seal(partial, manifest)
        if storage.is_remote(out):
            storage.upload_dir(partial, str(out), last=MANIFEST, replaces=outputs.replaceable(str(out), kind))
            replace_dir(partial, target)  # a copy in our own cache
        else:
            outputs.check(out, kind)  # the work may have taken days
            replace_dir(partial, target, lambda old: outputs.remove_result(old, kind))
        clear_hidden(target)
        copy.drop()
        workspace.published = target
        for listener in list(_listeners):
            listener(target)

    try:
        try:
            with copy:
                yield workspace
        except GateRefused as refusal:
            if workspace.publish_on_refusal:
                complete(refused=str(refusal))
                wait_for_all()
            else:
                discard(partial)
                copy.drop()
            raise
        except InputError:
            discard(partial)
            raise
        complete()
        wait_for_all()
    except Exception as error:
        reason = None if isinstance(error, OnlineVPOError) else storage_failure(error)
        if reason is None:
            raise
        kept = give_back_space(partial)
        raise InputError(f"{out}: cannot be written: {reason}{kept}") from error
    finally:
        held.close()


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


@contextmanager
def on_publish(listener: Callable[[Path], None]) -> Iterator[None]:
    """Within the block, call `listener` with the local folder of each artifact as soon as it is published."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def _target(out: str | Path) -> Path:
    """The local folder that `out` is, or is made in."""
    if not storage.is_remote(out):
        return outputs.target_of(out)
    uri = str(out).rstrip("/")
    key = hashlib.sha256(f"{s3.endpoint()} {uri}".encode()).hexdigest()[:16]
    return cache_dir() / "artifacts" / f"{PurePosixPath(uri).name}-{key}"


def _fetched(uri: str, manifest_text: bytes, manifest: Manifest) -> Path:
    """The verified local copy of a remote artifact, downloaded unless the cache has exactly this one."""
    target = _target(uri)
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
        raise InputError(f"{target}: cannot be written: {_os_reason(error)}; set ONLINEVPO_CACHE") from error
    return target


def _finished_files(partial: Path, step: str, about_run: Collection[str]) -> dict[str, FileEntry]:
    metrics = partial / METRICS
    if not metrics.is_file():
        raise RuntimeError(f"step {step} ended without writing {METRICS}")
    _checked_metrics(json.loads(metrics.read_text()))
    return entries_under(partial, about_run)


def _checked_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    for name, value in metrics.items():
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{METRICS}: {name} = {value!r} is not a finite number")
    return {str(name): value for name, value in metrics.items()}


def _seal(partial: Path, manifest: Manifest) -> None:
    folders = [p for p in partial.rglob("*") if p.is_dir() and not _hidden(p.relative_to(partial))]
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(OSError):  # not empty; a store has no empty folders either
            folder.rmdir()
    (partial / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    for name in [*manifest.files, MANIFEST]:
        # safetensors writes files that only their owner may read; a container reads them under another user.
        (partial / name).chmod(0o644)
        fsync(partial / name)
    for folder in [partial, *(p for p in partial.rglob("*") if p.is_dir())]:
        fsync(folder)


def _hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _os_reason(error: OSError) -> str:
    return storage_failure(error) or f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")


def _device(params: StepParams) -> str:
    from components.runtime.compute import devices

    return devices.describe(params.run.device)
