"""The compiled pipeline on one machine, through Kubeflow's own local runner, in containers or without.

    ROOT/pipeline.yaml       what is run, as `compile` writes it
    ROOT/RUN/STEP/artifact   a step's artifact, as artifacts/STEP of `dvc repro`
    ROOT/RUN/report.html     the exit handler's page
    ROOT/mlflow.db           tracking and the model registry, unless MLFLOW_TRACKING_URI names another place
    ROOT/checkpoints         checkpoints of what is not finished; a later run with the same params goes on
                             from there

Kubeflow's runner enforces neither the profile's CPU and memory limits nor its timeouts here, and does without
its secrets: the caller's environment stands in for them.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.params import resolved
from components.runtime.artifacts.outputs import check_file, starts_with
from components.runtime.errors import InputError, Interrupted, OnlineVPOError
from pipelines.compiler.compile import HEADER, as_text, documents_of, effective_params
from pipelines.compiler.image_digests import load_images, no_images
from pipelines.compiler.profile import Profile, load_profile
from pipelines.exit_handler.report import REPORT
from pipelines.lint.lint import refuse_faults
from pipelines.lint.places import refuse_unseen_places
from pipelines.local.engines import ContainerEngine, DockerEngine, HostEngine
from pipelines.local.environment import container_arguments, container_user, run_environment
from pipelines.local.kfp_patches import containers_started_by
from pipelines.local.outcome import conclude, outcome, table
from pipelines.steps import FINISH, STEPS
from pipelines.yaml_files import write_text


def run_locally(
    params_file: str | Path | None,
    overrides: Sequence[str],
    runner: str,
    images: Path | None,
    profile: str,
    root: Path,
) -> None:
    """Run the compiled pipeline to its end and print what became of each step.

    What a step made is checked afterwards: no status is believed. The arguments are the options of
    `onlinevpo local`. Containers see `root` and no other folder: footage, prompts or models that the params
    name must lie in it, in the image, or at s3://.

    Raises:
        InputError: if any of these is wrong, or a step said so of its own.
        GateRefused: if a gate refused.
        Interrupted: if the run was stopped.
        OnlineVPOError: if a step failed, or ended well without leaving what it should have made.
    """
    root = root.resolve()
    check_file(root / "pipeline.yaml", "a compiled pipeline", starts_with(HEADER))
    chosen = _for_one_machine(load_profile(profile))
    if runner == "docker" and images is None:
        raise InputError("--images: needed by --runner docker; or run without containers: --runner host")
    sections = resolved(effective_params(params_file, overrides, chosen))
    documents = documents_of(sections, chosen, load_images(images) if images else no_images())
    refuse_faults(documents, "the compiled pipeline", cluster=False)
    text = as_text(documents)
    if runner == "docker":
        refuse_unseen_places(sections, root)
        containers = DockerEngine()
        engine: ContainerEngine = containers
        user = container_user(root, containers.rootless())
        write_text(root / "pipeline.yaml", text)
        environment = run_environment(root, user)
        arguments = container_arguments(root, environment, chosen, user)
    else:
        write_text(root / "pipeline.yaml", text)
        environment = run_environment(root)
        engine, arguments = HostEngine(), {"environment": environment}
    stopped = False
    try:
        _run(text, root, engine, arguments)
    except KeyboardInterrupt:
        stopped = True
    if not engine.attempts:
        raise Interrupted() if stopped else OnlineVPOError("Kubeflow's local runner started no step")
    folder = engine.attempts[0].folder.parent
    outcomes = [outcome(step, engine.attempts, folder, stopped) for step in STEPS]
    page = folder / "report.html"
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(folder / FINISH / REPORT, page)
    print(table(outcomes, page, environment))
    conclude(outcomes, [a for a in engine.attempts if a.task == FINISH], page, stopped)


def _run(text: str, root: Path, engine: ContainerEngine, arguments: dict[str, Any]) -> None:
    """Run a compiled pipeline by kfp's local runner; how it went is to be read from `engine` and the disk."""
    from kfp import components, local

    with containers_started_by(engine, engine.client), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no effect in the current local runner")
        local.init(
            runner=local.DockerRunner(**arguments),
            pipeline_root=str(root),
            raise_on_error=False,
        )
        components.load_component_from_text(text)()


def _for_one_machine(profile: Profile) -> Profile:
    """The profile without pauses before a retry: on one machine there is no node to wait for.

    Raises:
        InputError: if a step needs several nodes.
    """
    names = [*(step.name for step in STEPS), FINISH]
    for name in names:
        nodes = profile.place(name).nodes
        if nodes > 1:
            raise InputError(
                f"profile `{profile.description}`: steps.{name}.nodes = {nodes}: must be 1 on one machine"
            )
    steps = {name: profile.place(name).model_copy(update={"retry_delay_seconds": 0}) for name in names}
    return profile.model_copy(update={"steps": steps})
