"""MLflow tracking at the edge of a step: one parent run per pipeline run, one child run per step.

A step's run has two kinds of numbers: the figures of its metrics.json under their own names, and the curves
of its training under ``curve/<name>``, a point for each iteration.

Settings, all from the environment: MLFLOW_TRACKING_URI (default: sqlite:///mlflow.db in the current folder),
MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID, ONLINEVPO_RUN (names the pipeline run; steps that share it
share a parent), MLFLOW_RUN_ID (log into that run, made by somebody else, and make none),
ONLINEVPO_TRACKING=off.

Tracking never ends a step: its first failure is told on stderr, once, and the step goes on. Numbers are kept
while the server is away and sent when it is back; what could not be sent by the end is told with its number.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.runtime.artifacts.artifact import METRICS
from components.runtime.artifacts.manifest import MANIFEST
from components.runtime.artifacts.publish import on_publish
from components.runtime.compute.distributed import is_main_process
from components.runtime.errors import GateRefused, InputError, Interrupted, one_line, shortened
from components.runtime.params import StepParams, digest
from components.runtime.tracking.mlflow_client import (
    connect,
    experiment_id,
    parent_run,
    tracking_uri,
    without_password,
)

#: What the names of a training's curves begin with: a curve and a final figure never share a name.
CURVE = "curve/"
STEP_TAG = "onlinevpo.step"
DIGEST_TAG = "onlinevpo.params_digest"
OUTCOME_TAG = "onlinevpo.outcome"
REASON_TAG = "onlinevpo.reason"

_VALUE_CAP = 500  # characters of a param's value that are logged
_TAG_CAP = 5000  # characters of a tag; MLflow's own limit
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
        """Log points of curves, `at` being the training step or iteration they belong to; sent in batches.

        A value called ``loss`` is the curve ``curve/loss``.
        """
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
        with on_publish(run.finish):
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
            experiment = experiment_id(self._client)
            pipeline = os.environ.get("ONLINEVPO_RUN")
            self.parent_id = parent_run(self._client, experiment, pipeline) if pipeline else None
            if self.parent_id:
                self._client.update_run(self.parent_id, status="RUNNING")
            self.run_id = self._unfinished(experiment, tags) or self._created(experiment, step, tags)
            mlflow.start_run(run_id=self.run_id, nested=True)

    def params(self, params: StepParams) -> None:
        from mlflow.entities import Param

        flat = flattened(params.model_dump(mode="json"))
        entries = [Param(name, shortened(value, _VALUE_CAP)) for name, value in flat.items()]
        for start in range(0, len(entries), 100):
            self._client.log_batch(self.run_id, params=entries[start : start + 100])

    def metrics(self, values: Mapping[str, float], at: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(CURVE + name, float(value), now, at) for name, value in values.items()]
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
        figures = json.loads((folder / METRICS).read_text())
        self._flush()
        self._join()
        self._log_metrics(self.run_id, figures)
        if self.parent_id:
            self._log_metrics(self.parent_id, {f"{step}.{name}": value for name, value in figures.items()})
        for name in _SHOWN_FOLDERS:
            if (folder / name).is_dir():
                self._client.log_artifacts(self.run_id, str(folder / name), name)
        pages = [path for kind in _SHOWN_PAGES for path in sorted(folder.glob(kind))]
        for path in [folder / MANIFEST, folder / METRICS, *pages]:
            if path.is_file():
                self._client.log_artifact(self.run_id, str(path))

    def end(self, status: str, outcome: str, reason: str = "") -> None:
        try:
            self._flush()
            self._client.set_tag(self.run_id, OUTCOME_TAG, outcome)
            if reason:
                self._client.set_tag(self.run_id, REASON_TAG, shortened(reason, _TAG_CAP))
        finally:
            self._close(status, outcome)

    def _close(self, status: str, outcome: str) -> None:
        self._join()
        active = self._mlflow.active_run()
        if active is not None and active.info.run_id == self.run_id:
            self._mlflow.end_run(status)
        else:
            self._client.set_terminated(self.run_id, status)
        if self.parent_id:
            self._client.set_terminated(self.parent_id, status)
            self._client.set_tag(self.parent_id, OUTCOME_TAG, outcome)

    def _join(self) -> None:
        """Move to the pipeline's one parent, where another process made one at the same moment."""
        pipeline = os.environ.get("ONLINEVPO_RUN")
        if self.parent_id is None or not pipeline:
            return
        experiment = self._client.get_run(self.run_id).info.experiment_id
        parent = parent_run(self._client, experiment, pipeline)
        if parent != self.parent_id:
            self._client.set_tag(self.run_id, "mlflow.parentRunId", parent)
            self.parent_id = parent

    def _unfinished(self, experiment: str, tags: Mapping[str, str]) -> str | None:
        """The run of an attempt at this step that was killed or interrupted, to resume."""
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


def _warn(error: Exception, effect: str) -> None:
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    line = f"warning: tracking at {tracking_uri()} failed, {effect}: {kind}{error}"
    print(one_line(without_password(line)), file=sys.stderr)
