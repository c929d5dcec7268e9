"""Publishing an artifact: a step's workspace becomes the artifact in one rename.

A step works in `<out>.partial`. Only when it is done does that folder become `<out>`. An s3:// output is made
in a local cache folder and uploaded at the end, its manifest last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.runtime.artifacts import outputs, provenance
from components.runtime.artifacts.artifact import METRICS, Artifact, input_digest, local_folder, os_reason
from components.runtime.artifacts.manifest import MANIFEST, SCHEMA_VERSION, Manifest, entries_under
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
from components.runtime.compute import devices
from components.runtime.compute.distributed import from_main, is_main_process, wait_for_all, world_size
from components.runtime.errors import GateRefused, InputError, OnlineVPOError, storage_failure
from components.runtime.io import storage
from components.runtime.io.files import fsync, replace_dir
from components.runtime.params import StepParams, canonical_json, digest

_listeners: list[Callable[[Path], None]] = []


@dataclass(frozen=True)
class StepResult:
    """Where a step's artifact lies, and its flat metrics."""

    out: Path
    metrics: dict[str, float]


@dataclass
class Workspace:
    """Where a step puts its files while it works.

    Attributes:
        dir: the folder.
        resumed: whether an earlier, unfinished attempt with the same params and inputs left something here.
        publish_on_refusal: set before raising GateRefused to publish the result all the same, marked as
            refused.
        about_run: files that describe this run (timings, code version) and not its result. The artifact's
            digest leaves them out, so that two runs with the same result have the same digest.
        published: the finished artifact's local folder, once the `with` block has ended.
    """

    dir: Path
    resumed: bool
    publish_on_refusal: bool = False
    about_run: set[str] = field(default_factory=set)
    published: Path | None = field(default=None, init=False)

    @property
    def checkpoints(self) -> Path:
        """Folder for checkpoints; kept with the workspace, not published."""
        return self.dir / CHECKPOINTS

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write metrics.json: flat names, finite numbers."""
        write_metrics(self.dir, metrics)


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
    same checkpoints (see `Mirror`) and vanishes at the end.

    Raises:
        InputError: if `out` cannot be written, holds what is not ours (see `outputs`), or another process is
            writing it.
        RuntimeError: if the block ends without having written metrics.json.
    """
    making = _Publication(out, step, params, inputs or {})
    if not is_main_process():
        with making.assist() as workspace:
            yield workspace
        return
    with contextlib.ExitStack() as lock:
        workspace = making.begin(lock)
        try:
            try:
                with making.checkpoints:
                    yield workspace
            except GateRefused as refusal:
                if workspace.publish_on_refusal:
                    making.complete(workspace, refused=str(refusal))
                    wait_for_all()
                else:
                    discard(making.partial)
                    making.checkpoints.drop()
                raise
            except InputError:
                discard(making.partial)
                raise
            making.complete(workspace)
            wait_for_all()
        except Exception as error:
            reason = None if isinstance(error, OnlineVPOError) else storage_failure(error)
            if reason is None:
                raise
            kept = give_back_space(making.partial)
            raise InputError(f"{out}: cannot be written: {reason}{kept}") from error


@contextmanager
def on_publish(listener: Callable[[Path], None]) -> Iterator[None]:
    """Within the block, call `listener` with the local folder of each artifact as soon as it is published."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def write_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """Write metrics.json into a folder: flat names, finite numbers.

    Raises:
        ValueError: a number is not finite.
    """
    _check_metrics(metrics)
    (folder / METRICS).write_text(json.dumps(dict(metrics), indent=2, sort_keys=True) + "\n")


class _Publication:
    """One artifact on its way: what it is made from, where it is made, where it goes."""

    def __init__(self, out: str | Path, step: str, params: StepParams, inputs: Mapping[str, Any]) -> None:
        self.out, self.step, self.params, self.inputs = out, step, params, inputs
        self.began, self.device = time.monotonic(), devices.describe(params.run.device)
        self.digests = {name: input_digest(value) for name, value in inputs.items() if value is not None}
        self.identity = {"step": step, "params": digest(params), "inputs": self.digests}
        self.target, self.kind = local_folder(out), outputs.artifact_of(step)
        self.partial = self.target.with_name(f"{self.target.name}.partial")
        key = hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()[:16]
        self.checkpoints = Mirror(self.partial / CHECKPOINTS, f"{step}-{key}")

    def begin(self, lock: contextlib.ExitStack) -> Workspace:
        """The main process's workspace; its lock is held until `lock` is closed."""
        try:
            if not storage.is_remote(self.out):
                outputs.recover(self.target, self.kind)
            outputs.check(self.out, self.kind, self.inputs.values())
            if storage.is_remote(self.out):
                storage.check_writable(str(self.out))
            resumed = prepare(self.partial, self.identity, self.checkpoints, lock)
        except OSError as error:
            raise InputError(f"{self.out}: cannot be written: {os_reason(error)}") from error
        from_main((self.partial / IDENTITY).read_text())
        wait_for_all()
        return Workspace(self.partial, resumed)

    @contextmanager
    def assist(self) -> Iterator[Workspace]:
        """The workspace of another process."""
        with assisting(self.partial, self.checkpoints) as resumed:
            workspace = Workspace(self.partial, resumed)
            try:
                yield workspace
            except GateRefused:
                # Not before the main process has published: who starts them all ends all as soon as one ends.
                if workspace.publish_on_refusal:
                    wait_for_all()
                raise
            wait_for_all()
        workspace.published = self.target

    def complete(self, workspace: Workspace, refused: str | None = None) -> None:
        """Write the manifest and put the artifact in its place."""
        metrics = self.partial / METRICS
        if not metrics.is_file():
            raise RuntimeError(f"step {self.step} ended without writing {METRICS}")
        _check_metrics(json.loads(metrics.read_text()))
        version, dirty = provenance.code_version()
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            step=self.step,
            params=self.params.model_dump(mode="json"),
            params_digest=digest(self.params),
            inputs=self.digests,
            files=entries_under(self.partial, workspace.about_run),
            seed=self.params.run.seed,
            code_version=version,
            code_dirty=dirty,
            libraries=provenance.library_versions(),
            device=self.device,
            processes=world_size(),
            wall_seconds=round(time.monotonic() - self.began, 3),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            refused=refused,
        )
        _seal(self.partial, manifest)
        if storage.is_remote(self.out):
            replaced = outputs.replaceable(str(self.out), self.kind)
            storage.upload_dir(self.partial, str(self.out), last=MANIFEST, replaces=replaced)
            replace_dir(self.partial, self.target)  # a copy in our own cache
        else:
            outputs.check(self.out, self.kind)  # the work may have taken days
            replace_dir(self.partial, self.target, lambda old: outputs.remove_result(old, self.kind))
        clear_hidden(self.target)
        self.checkpoints.drop()
        workspace.published = self.target
        for listener in list(_listeners):
            listener(self.target)


def _check_metrics(metrics: Mapping[str, Any]) -> None:
    for name, value in metrics.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{METRICS}: {name} = {value!r} is not a finite number")


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
