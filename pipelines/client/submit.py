"""Submitting a compiled pipeline: everything that can be wrong is found before the run exists.

Exit codes, from the errors raised here and in watch.py: 0 submitted, or succeeded with --wait; 1 the
run or the server failed; 2 bad file, host or token; 3 the linter refused, or a gate of the run; 75 nobody
knows yet: the run goes on without us, or the server was away; 130 the run was cancelled.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_server_api import V2beta1Run, V2beta1RuntimeConfig

from components.runtime.errors import InputError, Interrupted
from pipelines.client.connection import PollingPolicy, ServerUnavailable
from pipelines.client.kfp_api import Server
from pipelines.client.token import find_token
from pipelines.client.watch import follow, leaf_tasks, on_interrupt_named
from pipelines.lint.lint import read_pipeline, refuse_faults

_LONGEST_EXPERIMENT = 128  # the server's own limit


@dataclass(frozen=True)
class CompiledPipeline:
    """A compiled pipeline: its name, and the mapping that a run's request carries."""

    name: str
    spec: dict[str, Any]


def submit_pipeline(
    pipeline: Path,
    *,
    host: str,
    experiment: str = "onlinevpo",
    name: str | None = None,
    namespace: str | None = None,
    token_file: Path | None = None,
    service_account: str = "pipeline-runner",
    cache: bool = True,
    wait: bool = False,
    on_interrupt: str = "ask",
    polling: PollingPolicy | None = None,
) -> None:
    """Create a run of `pipeline`, print its URL on a line of its own, and follow it if asked to.

    The arguments are the options of `onlinevpo submit`, and time limits (`polling`).

    Raises:
        InputError: bad file, option, host or token; there is no run then.
        GateRefused: the linter found faults (there is no run), or a gate refused in a run that was followed.
        Interrupted: the server was away for too long, or following ended before the run did.
        RunFailed, RunCancelled: as a followed run ended.
    """
    choice, polling = on_interrupt_named(on_interrupt), polling or PollingPolicy()
    if not 0 < len(experiment.strip()) <= _LONGEST_EXPERIMENT:
        raise InputError(f"--experiment {experiment!r}: must be 1 to {_LONGEST_EXPERIMENT} characters")
    if name is not None and not name.strip():
        raise InputError("--name: must not be empty")
    compiled = load_compiled(pipeline, cache)

    server = Server(host, find_token(token_file), polling)
    name = name or f"{compiled.name}-{_now():%Y%m%d-%H%M%S}"
    try:
        server.connect()
        chosen = server.namespace(namespace)
        run = V2beta1Run(
            display_name=name,
            experiment_id=server.experiment(experiment, chosen),
            pipeline_spec=compiled.spec,
            runtime_config=V2beta1RuntimeConfig(parameters={}),
            service_account=service_account or None,
        )
        run_id = server.create_run(run, chosen)
    except (ServerUnavailable, KeyboardInterrupt) as stop:
        why = "stopped" if isinstance(stop, KeyboardInterrupt) else str(stop)
        raise Interrupted(f"{why}; if run {name} did not start, run the same command again") from None
    print(server.url(run_id), flush=True)
    if wait:
        follow(server, run_id, leaf_tasks(compiled.spec), choice, polling)


def load_compiled(file: Path, cache: bool = True) -> CompiledPipeline:
    """Read a compiled pipeline that has no faults.

    Args:
        file: as `python -m pipelines compile` writes it.
        cache: False turns caching off in every task. kfp's own switch leaves out the tasks inside an exit
            handler, which here are all steps.

    Raises:
        InputError: if it is no compiled pipeline.
        GateRefused: if the linter finds faults; they are printed on stderr.
    """
    documents = read_pipeline(file)
    spec = next(document for document in documents if "pipelineInfo" in document)
    name = str(spec["pipelineInfo"].get("name") or "")
    if not name or not leaf_tasks(spec):
        raise InputError(f"{file}: must have a pipelineInfo.name and tasks")
    refuse_faults(documents, str(file))
    if not cache:
        for component in (spec["root"], *spec.get("components", {}).values()):
            for task in component.get("dag", {}).get("tasks", {}).values():
                task["cachingOptions"] = {}
    platform = [document for document in documents if "platforms" in document]
    return CompiledPipeline(name, {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
