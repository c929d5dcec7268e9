"""`python -m pipelines.trainjob STEP`: a step of the pipeline on several nodes. Runs in the control image."""

from __future__ import annotations

from typing import Annotated

import typer

from components.runtime.step import command_app, main
from pipelines.container.entrypoint import (
    ExecutorInputOption,
    ExecutorOutputOption,
    RunOption,
    known_step,
    output_path,
    pipeline_run,
)
from pipelines.container.executor_io import ExecutorInput, resolved
from pipelines.steps import STEPS
from pipelines.trainjob.settings import parse_settings

app = command_app("Run one step of the pipeline on several nodes, as a Kubeflow Trainer TrainJob.")


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="STEP", help=", ".join(s.name for s in STEPS if s.scales))],
    executor_input: ExecutorInputOption,
    job: Annotated[str, typer.Option(help="how to run it: JSON, see settings.py")],
    executor_output: ExecutorOutputOption = None,
    run_name: RunOption = None,
    task: Annotated[str | None, typer.Option(help="Kubeflow's id of the task")] = None,
    poll_seconds: Annotated[
        float, typer.Option(min=0.01, help="seconds between two looks at the TrainJob")
    ] = 5.0,
) -> None:
    """Run STEP on several nodes with the parameters and artifacts that Kubeflow gives."""
    from pipelines.trainjob.launch import launch

    launch(
        known_step(name),
        ExecutorInput.parse(executor_input),
        parse_settings(job),
        run=pipeline_run(run_name),
        task=resolved(task),
        output_file=output_path(executor_output),
        poll_s=poll_seconds,
    )


if __name__ == "__main__":
    main(app)
