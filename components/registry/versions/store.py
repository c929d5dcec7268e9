"""Registered models in MLflow: versions with their files, tags, aliases."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.registry.gate.champion import read_rows
from components.registry.gate.gate import EvaluatedVersion
from components.registry.promotion_log import CANDIDATE, CHAMPION, PREVIOUS, Record
from components.runtime.errors import InputError, one_line, shortened
from components.runtime.io.files import sha256_file
from components.runtime.tracking.mlflow_client import connect, experiment_id
from components.runtime.tracking.retry import PREFIX, TAG_CAP, call, client, is_absent, place

METRIC_PREFIX = "evaluation/"
PROVENANCE = "provenance.json"
#: Tag with the SHA-256 of a version's provenance.json, which has the SHA-256 of every other file: the
#: database vouches for what lies in the artifact store.
SEAL = "provenance_sha256"
#: Tag with the run that holds a version's decisions since its own run was deleted.
DECISIONS_RUN = "decisions_run"
STEPS = ("evaluation", "alignment", "generator", "reward")


class Unreadable(InputError):
    """A version's files are missing or altered; the version itself is there."""


class Models:
    """One registered model.

    Args:
        name: its name.
        create: make the registry's database where there is none; else that is an error, so that a command
            that only looks leaves nothing behind.

    Raises:
        InputError: (every method) the registry cannot be reached.
    """

    def __init__(self, name: str, create: bool = False) -> None:
        self.name = name
        self._client = client(create)
        self.record = Record(self._client, name)

    def aliases(self) -> dict[str, str]:
        """Version by alias; empty when the model is not registered yet."""
        from mlflow.exceptions import MlflowException

        def get() -> dict[str, str]:
            try:
                found = self._client.get_registered_model(self.name)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
            return {alias: str(version) for alias, version in found.aliases.items()}

        return call(get)

    def set_alias(self, alias: str, version: str | None) -> None:
        """Point an alias at a version, or take it away."""
        if version is None:
            call(lambda: self._client.delete_registered_model_alias(self.name, alias))
        else:
            call(lambda: self._client.set_registered_model_alias(self.name, alias, version))

    def resolve(self, named: str) -> str:
        """The version that a number or an alias names.

        Raises:
            InputError: there is none.
        """
        versions = [row["version"] for row in self.versions()]
        found = self.aliases().get(named, named)
        if found not in versions:
            have = ", ".join([*self.aliases(), *versions]) or "nothing is registered"
            raise InputError(f"{self.name} at {place()}: no version `{named}`; there are: {have}")
        return found

    def tags(self, version: str) -> dict[str, str]:
        """A version's tags of ours, without the prefix."""
        found = call(
            lambda: self._client.get_model_version(self.name, version), f"version {version} of {self.name}"
        )
        return {
            name.removeprefix(PREFIX): value for name, value in found.tags.items() if name.startswith(PREFIX)
        }

    def find(self, tag: str, value: str) -> str | None:
        """The newest version that carries a tag of ours with this value."""
        versions = [found for found in self.versions() if found["tags"].get(tag) == value]
        return str(versions[-1]["version"]) if versions else None

    def versions(self) -> list[dict[str, Any]]:
        """Every version, oldest first: version, created (UTC), tags of ours, aliases."""
        aliases = self.aliases()
        found, page = [], None
        while True:
            rows = call(
                lambda token=page: self._client.search_model_versions(  # type: ignore[misc]
                    f"name='{self.name}'", 1000, page_token=token
                )
            )
            found += list(rows)
            page = rows.token
            if not page:
                break
        return [
            {
                "version": str(version.version),
                "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(
                    timespec="seconds"
                ),
                "aliases": sorted(
                    alias for alias, number in aliases.items() if number == str(version.version)
                ),
                "tags": {
                    name.removeprefix(PREFIX): value
                    for name, value in version.tags.items()
                    if name.startswith(PREFIX)
                },
            }
            for version in sorted(found, key=lambda one: int(one.version))
        ]

    def fetch(self, version: str, name: str, to: Path) -> Path:
        """Download a file or folder of a version ("" for all of it) into `to`; returns where it lies.

        Raises:
            InputError: it is not there.
        """
        source = call(lambda: self._client.get_model_version_download_uri(self.name, version))
        uri = f"{source.rstrip('/')}/{name}" if name else source
        return self._downloaded(uri, f"version {version} of {self.name}: {name or 'its files'}", to)

    def fetch_from_run(self, run_id: str, name: str, to: Path) -> Path:
        """Download a file of a run into `to`; returns where it lies.

        Raises:
            InputError: it is not there.
        """
        return self._downloaded(f"runs:/{run_id}/{name}", f"run {run_id}: {name}", to)

    def _downloaded(self, uri: str, what: str, to: Path) -> Path:
        to.mkdir(parents=True, exist_ok=True)
        download = connect().artifacts.download_artifacts
        try:
            return Path(call(lambda: download(artifact_uri=uri, dst_path=str(to)), what))
        except InputError as error:
            if is_absent(error.__cause__):
                raise Unreadable(str(error)) from error
            raise
        except OSError as error:
            raise Unreadable(f"{what}: {one_line(str(error))}") from error

    def missing(self, version: str) -> list[str]:
        """Files of a version that are not in the artifact store, or of another size there; by listing it.

        Raises:
            InputError: its provenance is missing or altered.
        """
        with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
            provenance = self.provenance(version, Path(scratch))
        if provenance is None:
            return []
        source = call(lambda: self._client.get_model_version_download_uri(self.name, version)).rstrip("/")
        listing = connect().artifacts.list_artifacts
        sizes: dict[str, int] = {}
        folders = [""]
        while folders:
            folder = folders.pop()
            uri = f"{source}/{folder}" if folder else source
            for found in call(lambda uri=uri: listing(artifact_uri=uri)):  # type: ignore[misc]
                name = f"{folder}/{found.path.rsplit('/', 1)[-1]}".lstrip("/")
                if found.is_dir:
                    folders.append(name)
                else:
                    sizes[name] = found.file_size
        return [name for name, entry in provenance["files"].items() if sizes.get(name) != entry["bytes"]]

    def provenance(self, version: str, to: Path) -> dict[str, Any] | None:
        """A version's provenance, checked against its seal; None for a version from before there was any.

        Raises:
            InputError: it was altered.
        """
        seal = self.tags(version).get(SEAL)
        if seal is None:
            return None
        text = self.fetch(version, PROVENANCE, to).read_bytes()
        if hashlib.sha256(text).hexdigest() != seal:
            raise Unreadable(
                f"version {version} of {self.name}: {PROVENANCE} is altered: "
                "its SHA-256 is not the one in the registry"
            )
        found: dict[str, Any] = json.loads(text)
        return found

    def evaluated(self, version: str, whole: bool = False) -> EvaluatedVersion:
        """A version as the gate sees it; every file is checked against its digest before it is believed.

        Args:
            whole: check the weights and all else of the version too, not only what the gate reads.

        Raises:
            InputError: a file is missing or altered.
        """
        tags = self.tags(version)
        with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
            provenance = self.provenance(version, Path(scratch))
            if provenance is None:
                return EvaluatedVersion(version, {"evaluation": self._logged(version)}, tags)
            files = provenance["files"]
            if whole:
                self._unaltered(version, files, Path(scratch) / "whole")

            def read(name: str) -> bytes:
                data = self.fetch(version, name, Path(scratch)).read_bytes()
                if hashlib.sha256(data).hexdigest() != files[name]["sha256"]:
                    raise Unreadable(f"version {version} of {self.name}: {name} is altered")
                return data

            metrics = {step: json.loads(read(f"{step}/metrics.json")) for step in STEPS}
            comparison = json.loads(read("evaluation/comparison.json"))
            rows: list[dict[str, Any]] = []
            if "evaluation/pairs.jsonl" in files:
                rows = read_rows(
                    read("evaluation/pairs.jsonl"), f"version {version} of {self.name}: pairs.jsonl"
                )
        digests = {name: str(value) for name, value in comparison.items() if name.endswith("_digest")}
        return EvaluatedVersion(version, metrics, digests, rows, comparison.get("unavailable", {}))

    def _unaltered(self, version: str, files: Mapping[str, Mapping[str, Any]], scratch: Path) -> None:
        root = self.fetch(version, "", scratch)
        for name, entry in files.items():
            if not (root / name).is_file() or sha256_file(root / name) != entry["sha256"]:
                raise Unreadable(
                    f"version {version} of {self.name}: {name} is missing or altered: "
                    "its SHA-256 is not the one recorded; register the candidate again"
                )

    def _logged(self, version: str) -> dict[str, float]:
        found = call(lambda: self._client.get_model_version(self.name, version))
        if not found.run_id:
            return {}
        metrics = call(lambda: self._client.get_run(found.run_id).data.metrics)
        return {
            name.removeprefix(METRIC_PREFIX): value
            for name, value in metrics.items()
            if name.startswith(METRIC_PREFIX)
        }

    def run(self, run_id: str | None) -> str:
        """A run to hold files: the given one, or a new one."""
        if run_id is not None:
            return run_id
        number = call(lambda: experiment_id(self._client))
        made = str(call(lambda: self._client.create_run(number, run_name="registry")).info.run_id)
        call(lambda: self._client.set_terminated(made))
        return made

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log an evaluation's figures to a run, where people look for them."""
        from mlflow.entities import Metric

        entries = [Metric(METRIC_PREFIX + name, value, 0, 0) for name, value in metrics.items()]
        for start in range(0, len(entries), 500):
            part = entries[start : start + 500]
            call(lambda part=part: self._client.log_batch(run_id, metrics=part))  # type: ignore[misc]

    def log_file(self, run_id: str, file: Path, folder: str) -> None:
        """Put one file into a folder of a run's artifacts."""
        call(lambda: self._client.log_artifact(run_id, str(file), folder))

    def runs_of(self, version: str) -> list[str]:
        """Ids of the runs with what belongs to a version: its own, and one made since that was deleted."""
        found = call(lambda: self._client.get_model_version(self.name, version))
        runs = [found.run_id, found.tags.get(PREFIX + DECISIONS_RUN)]
        return [str(run_id) for run_id in runs if run_id]

    def writable_run(self, version: str) -> str:
        """Id of a run that takes a version's decisions: its own, or a new one where that was deleted."""
        from mlflow.exceptions import MlflowException

        def active(run_id: str) -> bool:
            try:
                return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise

        for run_id in self.runs_of(version):
            if call(lambda run_id=run_id: active(run_id)):  # type: ignore[misc]
                return run_id
        made = self.run(None)
        self.tag(version, {DECISIONS_RUN: made})
        return made

    def register(self, run_id: str, folder: Path, key: str, tags: Mapping[str, str], description: str) -> str:
        """Register a folder as a new version and return its number.

        Args:
            run_id: run that holds the files.
            folder: the model's files, complete.
            key: what is the same only for the same files: they lie under it, so that no version's files are
                ever written over by another's.
            tags: of the version, without our prefix.
            description: of the registered model, where it is made.
        """
        from mlflow.exceptions import MlflowException

        def make() -> None:
            try:
                self._client.create_registered_model(self.name, description=description)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

        place = f"model-{key[:16]}"
        call(lambda: self._client.log_artifacts(run_id, str(folder), place), f"files of {self.name}")
        call(make)
        source = f"{call(lambda: self._client.get_run(run_id)).info.artifact_uri}/{place}"
        made = call(
            lambda: self._client.create_model_version(
                self.name,
                source,
                run_id=run_id,
                await_creation_for=0,  # a database has it at once
                tags={PREFIX + name: shortened(value, TAG_CAP) for name, value in tags.items()},
            )
        )
        return str(made.version)

    def describe(self, version: str, text: str) -> None:
        """Set a version's description, which MLflow shows as Markdown; shortened to what MLflow takes."""
        call(lambda: self._client.update_model_version(self.name, version, shortened(text, TAG_CAP)))

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of ours on a version."""
        for name, value in tags.items():
            call(
                lambda name=name, value=value: self._client.set_model_version_tag(  # type: ignore[misc]
                    self.name, version, PREFIX + name, shortened(value, TAG_CAP)
                )
            )


__all__ = ["CANDIDATE", "CHAMPION", "PREVIOUS", "Models"]
