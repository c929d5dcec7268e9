"""What became of a pipeline run and of each step, from what Kubeflow, MLflow and the containers tell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.exit_handler.mlflow_runs import Tracked
from pipelines.steps import STEPS, Step, step

#: What Kubeflow's final status may say, as an outcome; it has several words for the same.
_OUTCOMES = {
    "SUCCEEDED": "done",
    "COMPLETE": "done",
    "CACHED": "done",
    "FAILED": "failed",
    "SYSTEM_ERROR": "failed",
    "ERROR": "failed",
    "CANCELED": "interrupted",
    "CANCELLED": "interrupted",
    "CANCELING": "interrupted",
}
_ENDED_BADLY = ("refused", "failed", "interrupted")


@dataclass(frozen=True)
class FinalStatus:
    """How Kubeflow says the steps ended: its word for the state, and its message if it has one."""

    state: str
    message: str = ""

    @property
    def outcome(self) -> str:
        """done, failed or interrupted; "" where the state is none of the known ones."""
        return _OUTCOMES.get(self.state.upper().removeprefix("JOB_STATE_"), "")

    @classmethod
    def parse(cls, value: Any) -> FinalStatus:
        """The PipelineTaskFinalStatus that Kubeflow passes, as a mapping or as its JSON text."""
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return cls(value)
        if not isinstance(value, Mapping):
            return cls("UNKNOWN")
        error = value.get("error")
        message = error.get("message") if isinstance(error, Mapping) else ""
        return cls(str(value.get("state") or "UNKNOWN"), str(message or ""))


@dataclass(frozen=True)
class StepState:
    """What became of a step: done, refused, failed, interrupted, not reached, or unknown."""

    name: str
    state: str
    reason: str = ""
    tracked: Tracked | None = None


@dataclass(frozen=True)
class RunOutcome:
    """What became of the run: done, refused, failed or interrupted; why; and of each step."""

    state: str
    reason: str
    steps: tuple[StepState, ...]
    notes: tuple[str, ...] = ()


def judge(
    final: FinalStatus,
    tracked: Mapping[str, Tracked] | None,
    refusals: Mapping[str, str] | None = None,
    notes: Iterable[str] = (),
) -> RunOutcome:
    """What became of the run and of each step.

    A step without a run in MLflow may have been taken from the cache (then the whole run is done, or a step
    after it was reached), have ended before it was tracked, or not have been reached.

    Args:
        final: what Kubeflow says.
        tracked: the steps' runs in MLflow by step, None where MLflow could not be asked.
        refusals: reason by step, as the containers left word of them.
        notes: what the reader should know besides.
    """
    known = dict(tracked or {})
    refused = dict(refusals or {})
    reached = {name for name in (*known, *refused) for name in (name, *_before(step(name)))}
    states: dict[str, StepState] = {}
    for one in STEPS:
        run = known.get(one.name)
        if one.name in refused:
            states[one.name] = StepState(one.name, "refused", refused[one.name], run)
        elif run is not None:
            states[one.name] = _ended(run, final)
        elif final.outcome == "done" or one.name in reached:
            reason = "" if tracked is None else "taken from the cache, or not tracked"
            states[one.name] = StepState(one.name, "done", reason)
        elif tracked is None and not refused:
            states[one.name] = StepState(one.name, "unknown")
        else:
            states[one.name] = StepState(one.name, "not reached")
    if tracked is not None and final.outcome != "done" and not _bad(states.values()):
        for one in STEPS:
            if states[one.name].state == "not reached" and all(states[i].state == "done" for i in one.inputs):
                reason = "it ended before MLflow heard of it; the log of its task says why"
                states[one.name] = StepState(one.name, final.outcome or "failed", reason)
                break
    return _of_run(final, tuple(states.values()), tuple(notes))


def _ended(run: Tracked, final: FinalStatus) -> StepState:
    """What became of a step, from its run in MLflow."""
    if run.outcome:
        return StepState(run.step, run.outcome, "" if run.outcome == "done" else run.reason, run)
    if final.outcome == "done":
        return StepState(run.step, "done", "its run in MLflow was not closed", run)
    # Nothing of the run is at work any more, so a run that is still open was ended without being asked.
    state = "interrupted" if final.outcome == "interrupted" else "failed"
    return StepState(run.step, state, "ended without a word: killed, evicted or out of memory", run)


def _of_run(final: FinalStatus, steps: tuple[StepState, ...], notes: tuple[str, ...]) -> RunOutcome:
    first = next((one for one in steps if one.state in _ENDED_BADLY), None)
    if first is not None:
        return RunOutcome(
            first.state, f"{first.name}: {first.reason}" if first.reason else first.name, steps, notes
        )
    everything = all(one.state == "done" for one in steps)
    if final.outcome == "done" or (not final.outcome and everything):
        return RunOutcome("done", _left_out(steps), steps, notes)
    outcome = final.outcome or "failed"
    reason = final.message or f"Kubeflow reports {final.state}"
    if everything:
        reason += "; yet every tracked step ended well: look at what Kubeflow did after the last one"
    return RunOutcome(outcome, reason, steps, notes)


def _left_out(steps: Iterable[StepState]) -> str:
    """What a run that ended well did not bring: a promotion, where the registry's rules were not met."""
    for one in steps:
        figures = one.tracked.metrics if one.tracked else {}
        if one.name == "registry" and figures.get("accepted") == 0:
            failed = figures.get("rules_failed", 0)
            return f"the candidate was not promoted: {failed:.0f} of the registry's rules failed"
    return ""


def _bad(states: Iterable[StepState]) -> bool:
    return any(state.state in _ENDED_BADLY for state in states)


def _before(one: Step) -> set[str]:
    """The steps that must have ended before `one` could start."""
    return {name for parent in one.inputs for name in (parent, *_before(step(parent)))}
