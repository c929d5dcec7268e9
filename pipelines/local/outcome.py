"""What became of the steps of a local run: no status is believed, what a step left is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.runtime.artifacts.artifact import open_artifact
from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError
from components.runtime.tables import columns
from pipelines.local.engines import Attempt
from pipelines.steps import ARTIFACT, Step

_STATES = {0: "done", GateRefused.exit_code: "refused", Interrupted.exit_code: "interrupted"}


@dataclass(frozen=True)
class StepOutcome:
    """What became of a step of a local run."""

    step: str
    state: str
    code: int
    reason: str
    attempts: tuple[Attempt, ...]
    path: Path
    digest: str = ""


def outcome(step: Step, attempts: Sequence[Attempt], folder: Path, stopped: bool = False) -> StepOutcome:
    """What became of a step: what its last attempt said, and whether what it left bears that out.

    Of a run that was stopped from outside (``stopped``), the step that was at work may not have come to say
    so.
    """
    path = folder / step.name / ARTIFACT
    tries = tuple(attempt for attempt in attempts if attempt.task == step.name)

    def ended(state: str, code: int, reason: str = "", digest: str = "") -> StepOutcome:
        return StepOutcome(step.name, state, code, reason, tries, path, digest)

    if not tries:
        return ended("not reached", 1)
    last = tries[-1]
    state = _STATES.get(last.code, "failed")
    if stopped and state == "failed" and last is attempts[-1] and not last.last_line:
        return ended("interrupted", Interrupted.exit_code, "stopped on request")
    if last.code != 0:
        return ended(state, last.code, last.last_line)
    try:
        return ended("done", 0, digest=open_artifact(path, step=step.name).manifest.digest)
    except InputError as error:
        return ended("failed", 1, f"it reported success, but its artifact cannot be used: {error}")


def table(outcomes: Sequence[StepOutcome], report: Path, environment: dict[str, str]) -> str:
    """A line per step: what became of it, seconds, the start of its artifact's digest, where that lies."""
    rows = [("step", "state", "seconds", "digest", "artifact")]
    for step in outcomes:
        tries = f", {len(step.attempts)} attempts" if len(step.attempts) > 1 else ""
        seconds = f"{sum(a.seconds for a in step.attempts):.0f}" if step.attempts else ""
        place = str(_shown(step.path)) if step.state == "done" else ""
        rows.append((step.step, step.state + tries, seconds, step.digest[:12], place))
    ending = [f"report: {_shown(report)}"] if report.is_file() else []
    return "\n".join(
        [*columns(rows, left=(0, 1, 3, 4)), "", *ending, f"tracking: {environment['MLFLOW_TRACKING_URI']}"]
    )


def conclude(outcomes: Sequence[StepOutcome], finish: Sequence[Attempt], report: Path, stopped: bool) -> None:
    """Raise what the run's end stands for; nothing where it ended well.

    Args:
        outcomes: the steps' outcomes, in the order of the steps.
        finish: the attempts at the exit handler.
        report: the page that it should have left.
        stopped: whether the run was stopped from outside.
    """
    bad = next((one for one in outcomes if one.state not in ("done", "not reached")), None)
    if stopped:
        raise Interrupted(
            "stopped on request; the same command goes on from the last checkpoint of the step it was at"
        )
    if bad is not None:
        raise _error(bad)
    missed = next((one for one in outcomes if one.state == "not reached"), None)
    if missed is not None:
        raise OnlineVPOError(f"step {missed.step} was never run, though no step before it failed")
    if not finish or finish[-1].code != 0 or not report.is_file():
        said = finish[-1].last_line if finish else "it was never run"
        raise OnlineVPOError(f"the exit handler left no report: {said or 'it said nothing'}")


def _error(bad: StepOutcome) -> OnlineVPOError:
    for kind in (GateRefused, InputError, Interrupted):
        if bad.code == kind.exit_code:
            return kind(f"step {bad.step}: {bad.reason.removeprefix(f'{kind.label}: ')}")
    code = "" if bad.code == 1 else f" with exit code {bad.code}"
    return OnlineVPOError(f"step {bad.step} failed{code}: {bad.reason or 'it said nothing'}")


def _shown(path: Path) -> Path:
    """A path as a person in the current folder would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
