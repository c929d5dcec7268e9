"""Kubeflow components, generated from the table of steps: each is an image, a command, and typed ends.

Container components, because the images then need no kfp and a step stays a command line. What a task
computes is settled by the image's digest, the command and the inputs, and these Kubeflow's cache compares.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from kfp import dsl
from kfp.dsl import ContainerSpec

from components.runtime.params import canonical_json
from pipelines.compiler.image_digests import Images
from pipelines.steps import ARTIFACT, FINISH, RUN_PARAMS, STEP_PARAMS, Step, step
from pipelines.trainjob.settings import TrainJobSettings

#: Inputs and output of the exit handler.
STATUS, REPORT = "status", "report"

_FILES = (
    "--executor-input",
    dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
    "--executor-output",
    dsl.PIPELINE_TASK_EXECUTOR_OUTPUT_PATH_PLACEHOLDER,
)
# Only the local runner fills the name in here. As an input it would be filled in on a cluster too, but then
# every run would have its own cache key; there the pods' label says it, see placement.py.
_RUN = ("--run", dsl.PIPELINE_JOB_NAME_PLACEHOLDER)


def step_component(subject: Step, images: Images, processes: int = 1) -> Any:
    """The component of a step in one pod, on `processes` processes."""
    several = ("--processes", str(processes)) if processes > 1 else ()
    return _component(
        subject.name,
        images.of(subject.family),
        ("pipelines.container.entrypoint", subject.name, *_FILES, *_RUN, *several),
        _ends(subject),
    )


def trainjob_component(subject: Step, images: Images, settings: TrainJobSettings) -> Any:
    """The component of a step on several nodes: it creates a TrainJob and brings its result home."""
    return _component(
        subject.name,
        images.control,
        (
            "pipelines.trainjob",
            subject.name,
            *_FILES,
            *_RUN,
            "--task",
            dsl.PIPELINE_TASK_ID_PLACEHOLDER,
            "--job",
            canonical_json(settings.model_dump(mode="json")),
        ),
        _ends(subject),
    )


def finish_component(images: Images) -> Any:
    """The component of the exit handler, which is told how the rest ended."""
    ends = {STATUS: dsl.PipelineTaskFinalStatus, REPORT: dsl.Output[dsl.HTML]}
    return _component(FINISH, images.control, ("pipelines.exit_handler.report", *_FILES, *_RUN), ends)


def _ends(subject: Step) -> dict[str, Any]:
    """Inputs and outputs of a step by name, as kfp's annotations."""
    inputs = {name: dsl.Input[getattr(dsl, step(name).kind)] for name in subject.inputs}
    outputs = {name: dsl.Output[getattr(dsl, shown.kind)] for name, shown in subject.shown.items()}
    return {
        RUN_PARAMS: str,
        STEP_PARAMS: str,
        **inputs,
        ARTIFACT: dsl.Output[getattr(dsl, subject.kind)],
        **outputs,
    }


def _component(name: str, image: str, module: Sequence[str], ends: Mapping[str, Any]) -> Any:
    """A container component that runs a Python module; all that it needs is in the ExecutorInput message."""

    def container(*_: Any) -> ContainerSpec:
        return ContainerSpec(image=image, command=["python", "-m"], args=list(module))

    container.__name__ = name
    container.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(end, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)
            for end, annotation in ends.items()
        ],
        return_annotation=ContainerSpec,
    )
    return dsl.container_component(container)
