"""`python -m pipelines.exit_handler.report`: the exit handler. Closes the run in MLflow, leaves a report.

    final status of Kubeflow ──┐
    the steps' runs in MLflow ─┼─► what became of each step ──► report.html, also in the parent run
    refusals left by a step   ─┘                          └──► the parent run's status

It fails only where it cannot write: a failing exit handler would hide how the run really ended.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from components.runtime.errors import InputError, one_line
from components.runtime.progress import duration
from components.runtime.step import command_app, main
from pipelines.container.entrypoint import (
    ExecutorInputOption,
    ExecutorOutputOption,
    RunOption,
    output_path,
    pipeline_run,
    remembered_refusal,
    state_folder,
)
from pipelines.container.executor_io import ExecutorInput, write_output
from pipelines.exit_handler.mlflow_runs import TrackedRun, tracked_run
from pipelines.exit_handler.outcome import FinalStatus, RunOutcome, StepState, judge
from pipelines.steps import ARTIFACT, STEPS

REPORT, STATUS = "report", "status"
LOGGED_AS = "pipeline.html"

_HEADLINES = {
    "done": "Done: every step ended well",
    "refused": "Refused by a quality gate",
    "failed": "Failed",
    "interrupted": "Interrupted",
}
_ADVICE = {
    "done": "The evaluation's report page shows base and aligned side by side.",
    "refused": "A refusal is final for this run: change the params that it speaks of and start a new one; "
    "steps whose params and inputs stay the same are taken from the cache.",
    "failed": "The log of the step's task says what happened. A retry resumes from its last checkpoint.",
    "interrupted": "Nothing is lost: a retry resumes from the last checkpoint.",
}
#: The figures of each step that a person looks at first, by their names in metrics.json.
FIGURES: dict[str, tuple[str, ...]] = {
    "corpus": ("clips", "prompts_train", "prompts_heldout"),
    "generator": ("reconstruction_psnr_db", "object_found", "colour", "shape"),
    "reward": ("srcc_world", "srcc_heldout_types", "reference_above_all", "judge_srcc"),
    "alignment": ("pairs", "reward_mean_first", "reward_mean_last", "drift_from_base"),
    "evaluation": ("win_rate_judge", "win_rate_reward", "worst_semantic_delta", "motion_ratio"),
    "registry": ("accepted", "version", "rules_failed"),
}

app = command_app("The exit handler: close the run in MLflow and leave a report.")


@app.command()
def finish(
    executor_input: ExecutorInputOption,
    executor_output: ExecutorOutputOption = None,
    run_name: RunOption = None,
) -> None:
    """Close the pipeline's run in MLflow and write the report."""
    given = ExecutorInput.parse(executor_input)
    run = pipeline_run(run_name)
    report = given.output(REPORT).path
    final = FinalStatus.parse(given.parameters.get(STATUS))
    notes = []
    found, failure = _tracked(run)
    if found is None:
        notes.append(failure)
    refusals = {} if final.outcome == "done" else _refusals(run, report)
    outcome = judge(final, found.steps if found else None, refusals, notes)
    page = render(run or "unnamed run", final, outcome, found)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(page, encoding="utf-8")
    metadata = {"outcome": outcome.state, "reason": outcome.reason or None}
    write_output(given, {REPORT: metadata}, output_path(executor_output))
    if found is not None:
        _close(found, outcome, page)
    print(f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state)


def render(run: str, final: FinalStatus, outcome: RunOutcome, found: TrackedRun | None = None) -> str:
    """The report: one HTML page that needs nothing else. Every text in it goes through autoescape."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = [
        {
            "name": one.name,
            "state": one.state,
            "reason": one.reason,
            "figures": _figures(one),
            "time": duration(one.tracked.seconds) if one.tracked and one.tracked.seconds is not None else "",
            "run_id": one.tracked.run_id if one.tracked else "",
            "link": _link(found, one.tracked.run_id) if one.tracked else "",
        }
        for one in outcome.steps
    ]
    return environment.get_template("report.html.j2").render(
        run=run,
        outcome=outcome.state,
        headline=_headline(outcome),
        reason=outcome.reason,
        advice=_ADVICE[outcome.state],
        facts=_facts(final, outcome, found),
        steps=rows,
        notes=outcome.notes,
    )


def _refusals(run: str | None, report: Path) -> dict[str, str]:
    """Reasons of refused steps, as their containers left word of them.

    Without ONLINEVPO_CHECKPOINTS that is beside each step's output: to be found on one machine, where the
    tasks' folders lie side by side.
    """
    found = {}
    for one in STEPS:
        out = report.parent.parent / one.name / ARTIFACT
        reason = remembered_refusal(state_folder(run, out), one)
        if reason is not None:
            found[one.name] = reason
    return found


def _tracked(run: str | None) -> tuple[TrackedRun | None, str]:
    """The pipeline's run in MLflow, or None and the reason."""
    try:
        return tracked_run(run), ""
    except InputError as error:
        return None, str(error)
    except Exception as error:
        text = one_line(error)[:300]
        return None, f"MLflow could not be asked what became of the steps: {type(error).__name__}: {text}"


def _close(found: TrackedRun, outcome: RunOutcome, page: str) -> None:
    try:
        found.close(outcome.state, outcome.reason, LOGGED_AS, page)
    except Exception as error:
        text = one_line(error)[:300]
        print(f"warning: the run in MLflow is not closed: {type(error).__name__}: {text}", file=sys.stderr)


def _headline(outcome: RunOutcome) -> str:
    first = next((one.name for one in outcome.steps if one.state == outcome.state), "")
    words = _HEADLINES[outcome.state]
    return words if outcome.state == "done" or not first else f"{words}: {first}"


def _facts(final: FinalStatus, outcome: RunOutcome, found: TrackedRun | None) -> list[tuple[str, str, str]]:
    """What stands under the headline: name, text, link ("" for none)."""
    times = [one.tracked for one in outcome.steps if one.tracked]
    starts = [run.started for run in times if run.started]
    ends = [run.ended for run in times if run.ended]
    done = sum(one.state == "done" for one in outcome.steps)
    told = all(one.state != "unknown" for one in outcome.steps)
    count = f"{done} of {len(outcome.steps)}" if told else "not known"
    facts = [("steps done", count, ""), ("Kubeflow says", final.state, "")]
    if starts:
        facts.append(("first step started", _moment(min(starts)), ""))
    if starts and ends:
        facts.append(("until the last ended", duration(max(ends) - min(starts)), ""))
    if found is not None and found.run_id:
        link = _link(found, found.run_id)
        facts.append(("MLflow", "parent run" if link else found.run_id, link))
    return facts


def _figures(one: StepState) -> list[tuple[str, str]]:
    if one.tracked is None:
        return []
    values = one.tracked.metrics
    names: Sequence[str] = [name for name in FIGURES[one.name] if name in values]
    return [(name.replace("_", " "), f"{values[name]:.4g}") for name in names]


def _link(found: TrackedRun | None, run_id: str) -> str:
    """The page of a run where the tracking server has pages, without the credentials its address may hold."""
    if found is None or not found.uri.startswith(("http://", "https://")):
        return ""
    parts = urlsplit(found.uri)
    host = parts.netloc.rpartition("@")[2]
    base = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    return f"{base}/#/experiments/{found.experiment}/runs/{run_id}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


if __name__ == "__main__":
    main(app)
