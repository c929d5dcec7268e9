"""A pipeline run as MLflow knows it: the parent run and the run of each step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.runtime.errors import InputError, shortened
from components.runtime.tracking import step_run as tracking
from components.runtime.tracking.mlflow_client import connect, experiment_id, parent_run, tracking_uri
from pipelines.steps import STEPS

_STATUS = {"done": "FINISHED", "refused": "FAILED", "failed": "FAILED", "interrupted": "KILLED"}
_PARENT = "mlflow.parentRunId"
_TAG_CAP = 5000  # characters; MLflow's own limit


@dataclass(frozen=True)
class Tracked:
    """A step's run: its newest one, for an attempt that failed has a run of its own.

    Attributes:
        step: the step.
        run_id: MLflow's id.
        outcome: done, refused, failed or interrupted; "" if the run was never closed.
        reason: why, where it is not done.
        metrics: the last value of each.
        started, ended: seconds since the epoch; None where MLflow has none.
    """

    step: str
    run_id: str
    outcome: str = ""
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    started: float | None = None
    ended: float | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took, None while that is not known."""
        return None if self.started is None or self.ended is None else self.ended - self.started


@dataclass
class TrackedRun:
    """The parent run and the newest run of each step.

    Attributes:
        uri: the tracking server's address.
        experiment: id of the experiment.
        run_id: the run that the pipeline's outcome and report belong to.
        steps: the steps' runs.
        ours: whether that run is ours to close; Kubeflow closes the runs that it makes itself.
    """

    client: Any
    uri: str
    experiment: str
    run_id: str
    steps: dict[str, Tracked]
    ours: bool = True

    def close(self, outcome: str, reason: str, name: str, page: str) -> None:
        """Log the report, write the outcome, close the parent and what a killed step left open."""
        self.client.set_tag(self.run_id, tracking.OUTCOME_TAG, outcome)
        if reason:
            self.client.set_tag(self.run_id, tracking.REASON_TAG, shortened(reason, _TAG_CAP))
        if self.ours:
            for one in self.steps.values():
                if not one.outcome:
                    self.client.set_terminated(one.run_id, "KILLED")
            self.client.set_terminated(self.run_id, _STATUS[outcome])
        self.client.log_text(self.run_id, page, name)


def tracked_run(run: str | None) -> TrackedRun:
    """The runs of pipeline run `run`; its parent is made where no step made one (all came from the cache).

    Raises:
        InputError: if tracking is off or the run has no name to look for.
        Exception: whatever MLflow raises if it cannot be asked.
    """
    if os.environ.get("ONLINEVPO_TRACKING", "").lower() == "off":
        raise InputError("tracking is off, so what became of each step is not known")
    mlflow = connect()
    client = mlflow.MlflowClient()
    given = os.environ.get("MLFLOW_RUN_ID")
    if given:  # Kubeflow tracks by itself: this task has a run, beside those of the steps
        own = client.get_run(given)
        parent = own.data.tags.get(_PARENT, given)
        steps = _steps(client, own.info.experiment_id, parent)
        return TrackedRun(client, tracking_uri(), own.info.experiment_id, given, steps, ours=False)
    if not run:
        raise InputError("the pipeline run has no name, so its runs in MLflow cannot be found")
    experiment = experiment_id(client)
    parent = parent_run(client, experiment, run)
    return TrackedRun(client, tracking_uri(), experiment, parent, _steps(client, experiment, parent))


def _steps(client: Any, experiment: str, parent: str) -> dict[str, Tracked]:
    found = client.search_runs(
        [experiment],
        f"tags.`{_PARENT}` = '{parent}'",
        order_by=["attributes.start_time ASC"],
        max_results=1000,
    )
    known = {one.name for one in STEPS}
    steps: dict[str, Tracked] = {}
    for run in found:
        name = run.data.tags.get(tracking.STEP_TAG, "")
        if name in known:
            steps[name] = Tracked(
                step=name,
                run_id=run.info.run_id,
                outcome=run.data.tags.get(tracking.OUTCOME_TAG, "") if run.info.status != "RUNNING" else "",
                reason=_message(run.data.tags.get(tracking.REASON_TAG, "")),
                metrics=run.data.metrics,
                started=_seconds(run.info.start_time),
                ended=_seconds(run.info.end_time),
            )
    return steps


def _message(reason: str) -> str:
    """A reason without the name of the exception class that it starts with, where that is one of ours."""
    kind, colon, message = reason.partition(": ")
    return message if colon and kind in ("GateRefused", "InputError", "Interrupted") else reason


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None
