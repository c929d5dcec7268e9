"""The registered model in MLflow: versions, aliases, and the tags that say why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.registry.gate import Standing
from components.runtime.errors import InputError
from components.runtime.tracking import EXPERIMENT, connect, tracking_uri

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
PREFIX = "onlinevpo."
METRIC_PREFIX = "evaluation/"
#: MLflow stores at most 5,000 characters of a version's tag.
TAG_CAP = 4500


class Models:
    """One registered model.

    Aliases are last-writer-wins in MLflow: a promotion therefore looks at the champion again just before it
    moves the alias.

    Raises:
        InputError: (every method) the registry cannot be reached.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        with _reachable():
            self._client = connect().MlflowClient()

    def champion(self) -> Standing | None:
        """The version under the alias ``champion``."""
        version = self.aliases().get(CHAMPION)
        return None if version is None else self.standing(version)

    def aliases(self) -> dict[str, str]:
        """Version by alias; empty when the model is not registered yet."""
        from mlflow.exceptions import MlflowException

        with _reachable():
            try:
                found = self._client.get_registered_model(self.name)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
        return {alias: str(version) for alias, version in found.aliases.items()}

    def standing(self, version: str) -> Standing:
        """A version's evaluation, from its tags and from its run's metrics."""
        with _reachable(f"version {version} of {self.name}"):
            found = self._client.get_model_version(self.name, version)
            metrics = self._client.get_run(found.run_id).data.metrics if found.run_id else {}
        return Standing(
            version=str(found.version),
            metrics={
                name.removeprefix(METRIC_PREFIX): value
                for name, value in metrics.items()
                if name.startswith(METRIC_PREFIX)
            },
            digests={
                name.removeprefix(PREFIX): value
                for name, value in found.tags.items()
                if name.startswith(PREFIX)
            },
        )

    def find(self, tag: str, value: str) -> str | None:
        """The newest version that carries a tag of ours with this value."""
        versions = [found for found in self.versions() if found["tags"].get(PREFIX + tag) == value]
        return str(versions[-1]["version"]) if versions else None

    def versions(self) -> list[dict[str, Any]]:
        """Every version, oldest first: version, created (UTC), tags, aliases."""
        aliases = self.aliases()
        with _reachable():
            found = self._client.search_model_versions(f"name='{self.name}'")
        rows = [
            {
                "version": str(version.version),
                "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(
                    timespec="seconds"
                ),
                "aliases": sorted(
                    alias for alias, number in aliases.items() if number == str(version.version)
                ),
                "tags": dict(version.tags),
            }
            for version in found
        ]
        return sorted(rows, key=lambda row: int(row["version"]))

    def register(
        self,
        run_id: str | None,
        files: Mapping[str, Path],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> str:
        """Register files as a new version under the alias ``candidate`` and return its number.

        Args:
            run_id: run that holds the files; None makes one.
            files: local file by its folder inside the model.
            metrics: the evaluation's figures, logged to the run, from where a later comparison reads them.
            tags: of the version, without our prefix.
        """
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        with _reachable():
            if run_id is None:
                experiment = self._client.get_experiment_by_name(EXPERIMENT)
                number = (
                    experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
                )
                run_id = self._client.create_run(number, run_name="registry").info.run_id
                self._client.set_terminated(run_id)
            for name, file in files.items():
                self._client.log_artifact(run_id, str(file), str(Path("model") / Path(name).parent))
            entries = [Metric(METRIC_PREFIX + name, value, 0, 0) for name, value in metrics.items()]
            for start in range(0, len(entries), 500):
                self._client.log_batch(run_id, metrics=entries[start : start + 500])
            try:
                self._client.create_registered_model(
                    self.name, description="Text-to-video generator aligned by online DPO"
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"{self._client.get_run(run_id).info.artifact_uri}/model"
            made = self._client.create_model_version(
                self.name,
                source,
                run_id=run_id,
                tags={PREFIX + name: value[:TAG_CAP] for name, value in tags.items()},
            )
            self._client.set_registered_model_alias(self.name, CANDIDATE, made.version)
        return str(made.version)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of ours on a version."""
        with _reachable():
            for name, value in tags.items():
                self._client.set_model_version_tag(self.name, version, PREFIX + name, value[:TAG_CAP])

    def promote(self, version: str, expected: str | None, why: str) -> None:
        """Move ``champion`` to a version and ``previous`` to the one it takes over from.

        Args:
            version: the new champion.
            expected: the champion the decision was made against.
            why: kept in the version's tags.

        Raises:
            InputError: the champion is no longer the one expected.
        """
        current = self.aliases().get(CHAMPION)
        if current != expected:
            raise InputError(
                f"champion of {self.name} is now version {current or 'none'}, not {expected or 'none'}: "
                "another promotion came between; run the command again"
            )
        if current == version:
            return
        with _reachable(f"version {version} of {self.name}"):
            self._client.get_model_version(self.name, version)
            if current is not None:
                self._client.set_registered_model_alias(self.name, PREVIOUS, current)
            self._client.set_registered_model_alias(self.name, CHAMPION, version)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.tag(version, {"promoted": now, "promoted_because": why, "replaced": current or "none"})


@contextmanager
def _reachable(what: str = "") -> Iterator[None]:
    """Turn MLflow's failures into one line that names the registry."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError) as error:
        text = " ".join(str(error).split())[:300]
        raise InputError(
            f"model registry at {tracking_uri()}: {f'{what}: ' if what else ''}{text}"
        ) from error
