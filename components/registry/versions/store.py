"""Registered models in MLflow: versions with their tags, aliases, runs. Their files: `files.py`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.registry.client import RetryingClient, error_code
from components.registry.promotion_log import PromotionLog
from components.runtime.errors import InputError, shortened
from components.runtime.tracking.mlflow_client import experiment_id
from components.runtime.tracking.retry import PREFIX, TAG_CAP, call, place

METRIC_PREFIX = "evaluation/"
#: Tag with the run that holds a version's decisions since its own run was deleted.
DECISIONS_RUN = "decisions_run"


class RegisteredModel:
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
        self.client = RetryingClient(name, create)
        self.log = PromotionLog(self.client, name)

    def aliases(self) -> dict[str, str]:
        """Version by alias; empty when the model is not registered yet."""
        try:
            found = self.client.get_registered_model(self.name)
        except InputError as error:
            if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: str(version) for alias, version in found.aliases.items()}

    def set_alias(self, alias: str, version: str | None) -> None:
        """Point an alias at a version, or take it away."""
        if version is None:
            self.client.delete_registered_model_alias(self.name, alias)
        else:
            self.client.set_registered_model_alias(self.name, alias, version)

    def versions(self) -> list[dict[str, Any]]:
        """Every version, oldest first: version, created (UTC), tags of ours, aliases."""
        aliases = self.aliases()
        rows = []
        for row in sorted(self.client.search_all_versions(self.name), key=lambda row: int(row.version)):
            number, created = str(row.version), datetime.fromtimestamp(row.creation_timestamp / 1000, UTC)
            rows.append(
                {
                    "version": number,
                    "created": created.isoformat(timespec="seconds"),
                    "aliases": sorted(alias for alias, version in aliases.items() if version == number),
                    "tags": _ours(row.tags),
                }
            )
        return rows

    def numbers(self) -> list[str]:
        """The versions' numbers, oldest first."""
        return [row["version"] for row in self.versions()]

    def resolve(self, named: str) -> str:
        """The version that a number or an alias names.

        Raises:
            InputError: there is none.
        """
        versions = self.numbers()
        version = self.aliases().get(named, named)
        if version not in versions:
            have = ", ".join([*self.aliases(), *versions]) or "nothing is registered"
            raise InputError(f"{self.name} at {place()}: no version `{named}`; there are: {have}")
        return version

    def find(self, tag: str, value: str) -> str | None:
        """The newest version that carries a tag of ours with this value."""
        found = [row["version"] for row in self.versions() if row["tags"].get(tag) == value]
        return found[-1] if found else None

    def tags(self, version: str) -> dict[str, str]:
        """A version's tags of ours, without the prefix."""
        return _ours(self.client.get_model_version(self.name, version).tags)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of ours on a version."""
        for name, value in tags.items():
            self.client.set_model_version_tag(self.name, version, PREFIX + name, shortened(value, TAG_CAP))

    def describe(self, version: str, text: str) -> None:
        """Set a version's description, which MLflow shows as Markdown; shortened to what MLflow takes."""
        self.client.update_model_version(self.name, version, shortened(text, TAG_CAP))

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
        under = f"model-{key[:16]}"
        self.client.log_artifacts(run_id, str(folder), under)
        self.client.create_registered_model(self.name, description)
        made = self.client.create_model_version(
            self.name,
            f"{self.client.get_run(run_id).info.artifact_uri}/{under}",
            run_id=run_id,
            await_creation_for=0,  # a database has it at once
            tags={PREFIX + name: shortened(value, TAG_CAP) for name, value in tags.items()},
        )
        return str(made.version)

    def new_run(self) -> str:
        """A run to hold files; returns its id."""
        experiment = call(lambda: experiment_id(self.client.raw))
        run_id = str(self.client.create_run(experiment, run_name="registry").info.run_id)
        self.client.set_terminated(run_id)
        return run_id

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log an evaluation's figures to a run, where people look for them."""
        from mlflow.entities import Metric

        entries = [Metric(METRIC_PREFIX + name, value, 0, 0) for name, value in metrics.items()]
        for start in range(0, len(entries), 500):
            self.client.log_batch(run_id, metrics=entries[start : start + 500])

    def runs_of(self, version: str) -> list[str]:
        """Ids of the runs with what belongs to a version: its own, and one made since that was deleted."""
        row = self.client.get_model_version(self.name, version)
        runs = [row.run_id, row.tags.get(PREFIX + DECISIONS_RUN)]
        return [str(run_id) for run_id in runs if run_id]

    def writable_run(self, version: str) -> str:
        """Id of a run that takes a version's decisions: its own, or a new one where that was deleted."""
        for run_id in self.runs_of(version):
            try:
                if self.client.get_run(run_id).info.lifecycle_stage == "active":
                    return run_id
            except InputError as error:
                if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                    raise
        run_id = self.new_run()
        self.tag(version, {DECISIONS_RUN: run_id})
        return run_id


def _ours(tags: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(PREFIX): value for name, value in tags.items() if name.startswith(PREFIX)}
