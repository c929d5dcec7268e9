"""MLflow tracking at the edge of a step: one parent run per pipeline run, one child run per step.

Settings, all from the environment: MLFLOW_TRACKING_URI (default: sqlite:///mlflow.db in the current folder),
MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID, ONLINEVPO_RUN (names the pipeline run; steps that share it
share a parent), MLFLOW_RUN_ID (log into that run, made by somebody else, and make none),
ONLINEVPO_TRACKING=off.

Tracking never ends a step: its first failure is told on stderr, once, and the step goes on. Numbers are kept
while the server is away and sent when it is back; what could not be sent by the end is told with its number.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.runtime import artifacts
from components.runtime.distributed import is_main_process
from components.runtime.errors import GateRefused, InputError, Interrupted, one_line
from components.runtime.manifest import MANIFEST
from components.runtime.params import StepParams, digest

DEFAULT_URI = "sqlite:///mlflow.db"
EXPERIMENT = "onlinevpo"
PIPELINE_TAG = "onlinevpo.pipeline"
STEP_TAG = "onlinevpo.step"
DIGEST_TAG = "onlinevpo.params_digest"
OUTCOME_TAG = "onlinevpo.outcome"
REASON_TAG = "onlinevpo.reason"

_VALUE_CAP = 500  # characters of a param's value that are logged
_BATCH = 500  # metric values per request; MLflow takes at most 1000
_FLUSH_S = 10.0
_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 120.0  # after a failure, doubled with each
_KEPT = 100_000  # metric values kept while the server is away; beyond that the oldest go
_SHOWN_FOLDERS = ("plots", "clips")
_SHOWN_PAGES = ("*.html", "card.md", "card.json")


class StepRun:
    """The tracked run of one step. Without a backend every call does nothing."""

    def __init__(self, step: str, backend: _Mlflow | None = None) -> None:
        self.step = step
        self._backend = backend
        self._finished: Path | None = None
        self._unlogged: Path | None = None
        self._warned = False

    @property
    def run_id(self) -> str | None:
        """The MLflow run's id, None where tracking is off or failed."""
        return self._backend.run_id if self._backend else None

    def metrics(self, values: Mapping[str, float], at: int | None = None) -> None:
        """Log numbers, `at` being the training step or iteration they belong to; sent in batches."""
        self._guard(lambda mlflow: mlflow.metrics(values, at or 0), "numbers are kept and sent later")

    def finish(self, artifact_dir: Path) -> None:
        """Log a finished artifact: its metrics.json, plots/, clips/, report pages and manifest.

        Called by itself for what `publish` publishes while the run is open; a second call for one folder
        does nothing.
        """
        if self._finished == Path(artifact_dir):
            return
        self._finished = Path(artifact_dir)
        if not self._guard(lambda mlflow: mlflow.artifact(Path(artifact_dir), self.step)):
            self._unlogged = Path(artifact_dir)

    def _end(self, status: str, outcome: str, reason: str = "") -> None:
        """Send what is still to be sent, close the run; tell what could not be sent."""
        if self._unlogged is not None:
            folder, self._unlogged = self._unlogged, None
            if not self._guard(lambda mlflow: mlflow.artifact(folder, self.step)):
                self._unlogged = folder
        ended = self._guard(lambda mlflow: mlflow.end(status, outcome, reason))
        unsent = self._backend.unsent if self._backend else 0
        if unsent or self._unlogged is not None or not ended:
            files = ", its files and final figures are not there" if self._unlogged is not None else ""
            print(
                f"warning: {self.step}'s run is incomplete: {unsent} values were not sent{files}; "
                "the artifact holds all that counts",
                file=sys.stderr,
            )

    def _guard(
        self, act: Callable[[_Mlflow], None], effect: str = "this step's run there is incomplete"
    ) -> bool:
        if self._backend is None:
            return True
        try:
            act(self._backend)
        except Exception as error:
            if not self._warned:
                _warn(error, effect)
            self._warned = True
            return False
        return True


@contextmanager
def track(step: str, params: StepParams) -> Iterator[StepRun]:
    """Track the block as a run named `step`; only the main process of several does."""
    backend = None
    if os.environ.get("ONLINEVPO_TRACKING", "").lower() != "off" and is_main_process():
        try:
            backend = _Mlflow(step, params)
        except Exception as error:
            _warn(error, "this step goes untracked")
    run = StepRun(step, backend)
    run._guard(lambda mlflow: mlflow.params(params))
    try:
        with artifacts.on_publish(run.finish):
            yield run
    except BaseException as error:
        status, outcome = "FAILED", "failed"
        if isinstance(error, (Interrupted, KeyboardInterrupt)):
            status, outcome = "KILLED", "interrupted"
        elif isinstance(error, GateRefused):
            outcome = "refused"
        reason = f"{type(error).__name__}: {error}"
        run._end(status, outcome, reason)
        raise
    run._end("FINISHED", "done")


def tracking_uri() -> str:
    """Where tracking and the model registry are: MLFLOW_TRACKING_URI or a database in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def without_password(text: str) -> str:
    """`text` without the password that the tracking URI may hold: scheme://user:password@place."""
    account, at, _ = tracking_uri().partition("://")[2].rpartition("@")
    user, colon, _ = account.partition(":")
    return text.replace(f"{account}@", f"{user}@") if at and colon else text


def connect() -> Any:
    """The `mlflow` module, quiet and pointed at `tracking_uri()`; its import takes seconds.

    Raises:
        InputError: the URI names a database file in a place where none can be.
    """
    _check_place(tracking_uri())
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # It prints links to a finished run, with the tracking URI's password in them.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    # MLflow's own defaults keep an unreachable server's client waiting for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
    if mlflow.get_tracking_uri() != tracking_uri():
        mlflow.set_tracking_uri(tracking_uri())
    return mlflow


def _check_place(uri: str) -> None:
    """Refuse a SQLite file that cannot be opened at once; MLflow tries for two minutes before it says so."""
    from sqlalchemy.engine import make_url

    database = make_url(uri).database if uri.startswith("sqlite:") else None
    if not database or database == ":memory:":
        return
    try:
        Path(database).absolute().parent.mkdir(parents=True, exist_ok=True)
        sqlite3.connect(database).close()
    except (OSError, sqlite3.Error) as error:
        raise InputError(f"{uri}: no database can be kept there: {error}") from error


class _Mlflow:
    """One open MLflow run and its parent."""

    def __init__(self, step: str, params: StepParams) -> None:
        mlflow = connect()
        self._mlflow = mlflow
        self._client = mlflow.MlflowClient()
        self.parent_id: str | None = None
        self._pending: list[Any] = []
        self._next, self._pause, self._lost = time.monotonic() + _FLUSH_S, _PAUSE_S, 0
        tags = {STEP_TAG: step, DIGEST_TAG: digest(params)}
        if os.environ.get("MLFLOW_RUN_ID"):
            run = mlflow.start_run()
            self.run_id: str = run.info.run_id
            mlflow.set_tags(tags)
        else:
            experiment = self._experiment()
            self.parent_id = self._parent(experiment)
            if self.parent_id:
                self._client.update_run(self.parent_id, status="RUNNING")
            self.run_id = self._unfinished(experiment, tags) or self._created(experiment, step, tags)
            mlflow.start_run(run_id=self.run_id, nested=True)

    def params(self, params: StepParams) -> None:
        from mlflow.entities import Param

        flat = flattened(params.model_dump(mode="json"))
        entries = [Param(name, value[:_VALUE_CAP]) for name, value in flat.items()]
        for start in range(0, len(entries), 100):
            self._client.log_batch(self.run_id, params=entries[start : start + 100])

    def metrics(self, values: Mapping[str, float], at: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(name, float(value), now, at) for name, value in values.items()]
        if len(self._pending) > _KEPT:
            self._lost += len(self._pending) - _KEPT
            del self._pending[:-_KEPT]
        full = len(self._pending) >= _BATCH and self._pause == _PAUSE_S
        if full or time.monotonic() > self._next:
            self._flush()

    @property
    def unsent(self) -> int:
        """Values that the server does not have."""
        return len(self._pending) + self._lost

    def artifact(self, folder: Path, step: str) -> None:
        figures = json.loads((folder / artifacts.METRICS).read_text())
        self._flush()
        self._log_metrics(self.run_id, figures)
        if self.parent_id:
            self._log_metrics(self.parent_id, {f"{step}.{name}": value for name, value in figures.items()})
        for name in _SHOWN_FOLDERS:
            if (folder / name).is_dir():
                self._client.log_artifacts(self.run_id, str(folder / name), name)
        pages = [path for kind in _SHOWN_PAGES for path in sorted(folder.glob(kind))]
        for path in [folder / MANIFEST, folder / artifacts.METRICS, *pages]:
            if path.is_file():
                self._client.log_artifact(self.run_id, str(path))

    def end(self, status: str, outcome: str, reason: str = "") -> None:
        try:
            self._flush()
            self._client.set_tag(self.run_id, OUTCOME_TAG, outcome)
            if reason:
                self._client.set_tag(self.run_id, REASON_TAG, reason[:5000])
        finally:
            self._close(status, outcome)

    def _close(self, status: str, outcome: str) -> None:
        active = self._mlflow.active_run()
        if active is not None and active.info.run_id == self.run_id:
            self._mlflow.end_run(status)
        else:
            self._client.set_terminated(self.run_id, status)
        if self.parent_id:
            self._client.set_terminated(self.parent_id, status)
            self._client.set_tag(self.parent_id, OUTCOME_TAG, outcome)

    def _experiment(self) -> str:
        given = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if given:
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _parent(self, experiment: str) -> str | None:
        """The pipeline run that ONLINEVPO_RUN names, made where there is none; None if nothing is named."""
        pipeline = os.environ.get("ONLINEVPO_RUN")
        if not pipeline:
            return None
        runs = self._client.search_runs(
            [experiment], f"tags.`{PIPELINE_TAG}` = '{_quoted(pipeline)}'", max_results=1
        )
        if runs:
            return str(runs[0].info.run_id)
        made = self._client.create_run(experiment, run_name=pipeline, tags={PIPELINE_TAG: pipeline})
        return str(made.info.run_id)

    def _unfinished(self, experiment: str, tags: Mapping[str, str]) -> str | None:
        """The run of an attempt at this step that was killed or interrupted, to be gone on with."""
        if not self.parent_id:
            return None
        wanted = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
        wanted.append(f"tags.`mlflow.parentRunId` = '{self.parent_id}'")
        for run in self._client.search_runs([experiment], " and ".join(wanted), max_results=5):
            if run.info.status in ("RUNNING", "KILLED"):
                return str(run.info.run_id)
        return None

    def _created(self, experiment: str, step: str, tags: Mapping[str, str]) -> str:
        extra = {"mlflow.parentRunId": self.parent_id} if self.parent_id else {}
        return str(self._client.create_run(experiment, run_name=step, tags={**tags, **extra}).info.run_id)

    def _log_metrics(self, run_id: str, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, float(value), now, 0) for name, value in values.items()]
        for start in range(0, len(batch), _BATCH):
            self._client.log_batch(run_id, metrics=batch[start : start + _BATCH])

    def _flush(self) -> None:
        try:
            while self._pending:
                # Sent twice where only the answer was lost: the store keeps equal values once.
                self._client.log_batch(self.run_id, metrics=self._pending[:_BATCH])
                del self._pending[:_BATCH]
        except Exception:
            # An attempt on a server that is away takes seconds of the training's time: ever fewer of them.
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
            self._next = time.monotonic() + self._pause
            raise
        self._next, self._pause = time.monotonic() + _FLUSH_S, _PAUSE_S


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested params as "a.b.c" -> text; lists stay whole, as JSON."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _quoted(text: str) -> str:
    """`text` for a filter expression, which knows no escape for its quotes."""
    if "'" in text:
        raise ValueError(f"ONLINEVPO_RUN = {text!r}: must not hold a quote")
    return text


def _warn(error: Exception, effect: str) -> None:
    text = without_password(" ".join(str(error).split()))[:300]
    line = f"warning: tracking at {tracking_uri()} failed, {effect}: {type(error).__name__}: {text}"
    print(one_line(without_password(line)), file=sys.stderr)
