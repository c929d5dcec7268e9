"""`python -m pipelines`: plan, compile, lint, submit, watch, run on this machine, write GitOps manifests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from components.runtime.errors import InputError
from components.runtime.step import ParamsOption, SetOption, command_app, main

app = command_app("The Kubeflow pipeline: plan, compile, lint, submit, or run it on this machine.")

ProfileOption = Annotated[
    str,
    typer.Option(help="a YAML file, or the name of one in pipelines/profiles: placement, secrets, params"),
]
ImagesOption = Annotated[
    Path, typer.Option(help="YAML file: one image reference with a digest per image family")
]
HostOption = Annotated[str, typer.Option(help="URL of the Kubeflow Pipelines API", envvar="KFP_HOST")]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(help="file with a bearer token [default: the pod's service account token, if any]"),
]
OnInterruptOption = Annotated[str, typer.Option(help="what Ctrl-C does to the run: leave, cancel or ask")]
PipelineArgument = Annotated[Path, typer.Argument(help="a compiled pipeline.yaml")]
#: Top-level modules of the extra `pipelines` of pyproject.toml.
_EXTRA = ("docker", "google", "kfp", "kfp_server_api", "kubernetes", "kubeflow_trainer_api", "urllib3")


@contextmanager
def _extra() -> Iterator[None]:
    """As a decorator of a command: say in one line where the extra that it needs is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise InputError(
            f"this command needs the extra `pipelines` (no module {error.name}): "
            "pip install 'onlinevpo[pipelines]'"
        ) from None


class Runner(StrEnum):
    """Where `run-local` runs the steps."""

    docker = "docker"
    host = "host"


@app.command("compile")
@_extra()
def compile_(
    images: ImagesOption,
    params_file: ParamsOption = None,
    overrides: SetOption = None,
    profile: ProfileOption = "miniature-cpu",
    output: Annotated[Path, typer.Option("--output", "-o", help="where to write it")] = Path("pipeline.yaml"),
    contents: Annotated[
        bool,
        typer.Option(
            "--contents", help="ask the stores for what params name there: if it changed, its tasks run again"
        ),
    ] = False,
) -> None:
    """Compile the pipeline to YAML: the same inputs always give the same bytes."""
    from pipelines.compiler.compile import compile_to

    compile_to(output, params_file, overrides or (), profile, images, contents)
    print(output)


@app.command()
@_extra()
def lint(pipeline: PipelineArgument) -> None:
    """Look for what the compiler and the server let pass; exit 3 if there is anything."""
    from pipelines.lint.lint import lint_or_refuse

    lint_or_refuse(pipeline)
    print(f"{pipeline}: no faults")


@app.command()
@_extra()
def plan(
    params_file: ParamsOption = None,
    overrides: SetOption = None,
    profile: ProfileOption = "miniature-cpu",
    gpu: Annotated[
        str | None, typer.Option(help="the GPU, as its node label says [default: the profile's]")
    ] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="share of the GPU's stated rate that is reached")
    ] = 0.4,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Print what the alignment takes of its GPUs, in memory and time, without weights and without a GPU."""
    import json

    from components.planning.table import as_table
    from pipelines.compiler.plan import plan_profile

    made = plan_profile(params_file, overrides or (), profile, gpu, utilisation)
    print(json.dumps(made.as_json(), indent=2) if as_json else as_table(made))


@app.command()
@_extra()
def submit(
    pipeline: PipelineArgument,
    host: HostOption,
    experiment: Annotated[
        str, typer.Option(help="experiment the run belongs to, created if there is none")
    ] = "onlinevpo",
    name: Annotated[str | None, typer.Option(help="name of the run [default: dated]")] = None,
    namespace: Annotated[str | None, typer.Option(help="profile namespace of a multi-user server")] = None,
    token_file: TokenFileOption = None,
    service_account: Annotated[
        str, typer.Option(help="service account the run's pods use")
    ] = "pipeline-runner",
    cache: Annotated[bool, typer.Option(help="reuse results of equal steps")] = True,
    wait: Annotated[bool, typer.Option(help="follow the run; exit with its outcome")] = False,
    on_interrupt: OnInterruptOption = "ask",
) -> None:
    """Submit a compiled pipeline and print the run's URL."""
    from pipelines.client.submit import submit_pipeline

    submit_pipeline(
        pipeline,
        host=host,
        experiment=experiment,
        name=name,
        namespace=namespace,
        token_file=token_file,
        service_account=service_account,
        cache=cache,
        wait=wait,
        on_interrupt=on_interrupt,
    )


@app.command()
@_extra()
def watch(
    run: Annotated[str, typer.Argument(help="id of a run")],
    host: HostOption,
    token_file: TokenFileOption = None,
    on_interrupt: OnInterruptOption = "ask",
) -> None:
    """Follow a run that was submitted; exit with its outcome."""
    from pipelines.client.watch import watch_run

    watch_run(run, host=host, token_file=token_file, on_interrupt=on_interrupt)


@app.command("run-local")
@_extra()
def run_local(
    params_file: ParamsOption = None,
    overrides: SetOption = None,
    runner: Annotated[
        Runner, typer.Option(help="docker: the real images; host: this environment")
    ] = Runner.docker,
    images: Annotated[Path | None, typer.Option(help="image references, needed by the docker runner")] = None,
    profile: ProfileOption = "miniature-cpu",
    root: Annotated[Path, typer.Option(help="where results and tracking are kept")] = Path("local-run"),
) -> None:
    """Run the compiled pipeline on this machine, through Kubeflow's own local runner."""
    from pipelines.local.run import run_locally

    run_locally(params_file, overrides or (), runner.value, images, profile, root)


@app.command("manifests", hidden=True, deprecated=True)
@app.command()
@_extra()
def gitops(
    pipeline: PipelineArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="where to write them")],
    namespace: Annotated[str, typer.Option(help="namespace of the objects")] = "onlinevpo",
) -> None:
    """Write a compiled pipeline as Kubernetes Pipeline and PipelineVersion objects, for GitOps."""
    from pipelines.compiler.gitops import write_manifests

    write_manifests(pipeline, output, namespace)
    print(output)


if __name__ == "__main__":
    main(app)
