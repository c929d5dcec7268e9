"""`python -m pipelines.container.entrypoint STEP`: one step inside a container of the pipeline.

    ExecutorInput ──► params file, input paths ──► python -m components.STEP run ──► verify ──► ExecutorOutput

Knows Kubeflow's two JSON files and the step contract, and needs neither kfp nor torch. Exit codes are the
step's own; 1 also where a step that said 0 did not leave a whole artifact.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from components.runtime.artifacts import remote_checkpoints as mirror
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError, one_line
from components.runtime.io import storage
from components.runtime.params import canonical_json
from components.runtime.step import command_app, main
from pipelines.container.executor_io import ExecutorInput, resolved, write_output
from pipelines.container.supervise import Ended, run_child
from pipelines.steps import ARTIFACT, RUN_PARAMS, STEP_PARAMS, STEPS, Step, step

RUN_VARIABLE = "ONLINEVPO_RUN"

app = command_app("Run one step inside a container of the pipeline.")

ExecutorInputOption = Annotated[str, typer.Option(help="the ExecutorInput message: {{$}}")]
ExecutorOutputOption = Annotated[
    str | None,
    typer.Option(help="where to write the ExecutorOutput message [default: where the input says]"),
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", help=f"name of the pipeline run; {RUN_VARIABLE} in the environment wins"),
]
ContentsOption = Annotated[
    str | None,
    typer.Option("--contents", help="digest of what params name in a store: for the cache, not read"),
]


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="STEP", help=", ".join(s.name for s in STEPS))],
    executor_input: ExecutorInputOption,
    executor_output: ExecutorOutputOption = None,
    run_name: RunOption = None,
    processes: Annotated[int, typer.Option(min=1, help="processes on this machine, one per GPU")] = 1,
    contents: ContentsOption = None,
) -> int:
    """Run STEP with the parameters and artifacts that Kubeflow gives, and hand back what it made."""
    return run_step(
        known_step(name),
        ExecutorInput.parse(executor_input),
        run=pipeline_run(run_name),
        output_file=output_path(executor_output),
        processes=processes,
    )


def run_step(
    step: Step,
    given: ExecutorInput,
    *,
    run: str | None,
    output_file: Path | None = None,
    processes: int = 1,
) -> int:
    """Run a step as a child process, check what it made and write the ExecutorOutput; returns the exit code.

    Args:
        step: the step.
        given: what Kubeflow handed over.
        run: name of the pipeline run, None where nobody named it: the step is then tracked without a parent.
        output_file: where to write the ExecutorOutput, None for where `given` says.
        processes: how many processes work on it here.

    Raises:
        GateRefused: if an earlier attempt was refused.
        OnlineVPOError: if the step ended well but its artifact is missing or not whole.
    """
    out = given.output(ARTIFACT).path
    state = state_folder(run, out)
    reason = remembered_refusal(state, step)
    if reason is not None:
        raise GateRefused(reason)
    environment = dict(os.environ) | {"PYTHONUNBUFFERED": "1"}
    if run:
        environment[RUN_VARIABLE] = run
    with tempfile.TemporaryDirectory(prefix="onlinevpo-") as scratch:
        params = Path(scratch) / "params.json"
        params.write_text(params_text(step, given))
        inputs = {name: str(given.input(name).path) for name in step.inputs}
        ended = run_child(step_command(step, str(params), inputs, str(out), processes), environment)
    if ended.code == 0:
        deliver(step, given, output_file)
        return 0
    line = _last_word(ended)
    if ended.code == GateRefused.exit_code:
        reason = line.removeprefix(f"{GateRefused.label}: ") or f"step {step.name} was refused"
        remember_refusal(state, step, reason)
    if line != ended.last_line:
        print(line, file=sys.stderr, flush=True)
    return ended.code


def step_command(
    step: Step, params: str, inputs: Mapping[str, str], out: str, processes: int = 1
) -> list[str]:
    """The command line of a step in `processes` processes of this machine."""
    launcher = [sys.executable, "-m"]
    if processes > 1:  # torchrun itself would end with 1 whatever the step ended with
        launcher += ["pipelines.trainjob.torchrun", "--standalone", "--nproc-per-node", str(processes), "-m"]
    given = [part for name, place in inputs.items() for part in (f"--{name}", place)]
    return [*launcher, f"components.{step.name}", "run", "--params", params, *given, "--out", out]


def params_text(step: Step, given: ExecutorInput) -> str:
    """The step's params file as canonical JSON (which is YAML): the shared `run` and its own section.

    Raises:
        InputError: if a parameter is missing or not a JSON object.
    """
    return canonical_json({"run": given.json(RUN_PARAMS), step.name: given.json(STEP_PARAMS)})


def deliver(step: Step, given: ExecutorInput, output_file: Path | None = None) -> Artifact:
    """Check the artifact that a step left at its output path; hand it and what it shows over to Kubeflow.

    Raises:
        OnlineVPOError: if it is not there or not whole, or lacks a file that is to be shown.
    """
    place = given.output(ARTIFACT).path
    try:
        artifact = open_artifact(place, step=step.name)
        made: dict[str, dict[str, Any]] = {ARTIFACT: _metadata(artifact)}
        for name, shown in step.shown.items():
            _copy(artifact.file(shown.file), given.output(name).path)
            made[name] = dict(artifact.metrics()) if shown.kind == "Metrics" else {}
    except InputError as error:
        raise OnlineVPOError(
            f"step {step.name} ended with 0 but its result cannot be used: {error}"
        ) from error
    write_output(given, made, output_file)
    return artifact


def state_folder(run: str | None, out: Path) -> str:
    """Where attempts of one pipeline run leave word for the next: a folder or s3:// prefix.

    Under ONLINEVPO_CHECKPOINTS where that is set, because a retried container starts on an empty disk; else
    beside the output `out`.
    """
    root = os.environ.get(mirror.VARIABLE, "").rstrip("/")
    return f"{root}/runs/{run}" if root and run else str(out.parent)


def remembered_refusal(state: str, step: Step) -> str | None:
    """The reason for which an earlier attempt at `step` was refused, None if none was."""
    try:
        text = storage.read_bytes(_refusal(state, step))
        return None if text is None else str(json.loads(text)["reason"])
    except (OnlineVPOError, OSError, ValueError, KeyError, TypeError) as error:
        _warn(f"{_refusal(state, step)} cannot be read, the step runs", error)
        return None


def remember_refusal(state: str, step: Step, reason: str) -> None:
    """Leave word that `step` was refused: a refusal is final, a retry must not repeat hours of training."""
    place = _refusal(state, step)
    try:
        with tempfile.TemporaryDirectory(prefix="onlinevpo-") as scratch:
            file = Path(scratch) / "refused.json"
            file.write_text(json.dumps({"code": GateRefused.exit_code, "reason": reason}) + "\n")
            storage.write_file(file, place)
    except (OnlineVPOError, OSError) as error:
        _warn(f"{place} cannot be written, a retry will run the step again", error)
        print(f"{GateRefused.label}: {reason}", file=sys.stderr, flush=True)


def known_step(name: str) -> Step:
    """The step called `name`.

    Raises:
        InputError: if there is none.
    """
    try:
        return step(name)
    except KeyError:
        raise InputError(f"STEP = {name}: must be one of {', '.join(s.name for s in STEPS)}") from None


def pipeline_run(given: str | None) -> str | None:
    """The pipeline run's name: ONLINEVPO_RUN in the environment, else `given` unless nobody filled it in."""
    return os.environ.get(RUN_VARIABLE) or resolved(given)


def output_path(given: str | None) -> Path | None:
    """`given` as a path, None where it is a placeholder that nobody filled in."""
    text = resolved(given)
    return Path(text) if text else None


def _last_word(ended: Ended) -> str:
    """The line in which the step said why it ended; of several processes torchrun has the very last one."""
    for kind in (GateRefused, Interrupted, InputError):
        if ended.code == kind.exit_code:
            for line in reversed(ended.stderr.splitlines()):
                if line.startswith(f"{kind.label}: "):
                    return line.strip()
    return ended.last_line


def _metadata(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "step": manifest.step,
        "digest": manifest.digest,
        "params_digest": manifest.params_digest,
        "code_version": manifest.code_version + ("+changes" if manifest.code_dirty else ""),
        "wall_seconds": manifest.wall_seconds,
        "refused": manifest.refused,
    }


def _copy(file: Path, target: Path) -> None:
    """Copy a file to where Kubeflow looks for an output; an empty folder made for it gives way."""
    if target.is_dir():
        target.rmdir()
    storage.write_file(file, target)


def _refusal(state: str, step: Step) -> str:
    return f"{state}/{step.name}.refused.json"


def _warn(effect: str, error: Exception) -> None:
    print(f"warning: {effect}: {one_line(error)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(app)
