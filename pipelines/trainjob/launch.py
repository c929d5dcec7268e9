"""From Kubeflow's task to a TrainJob and back: create it or find it, wait, bring the artifact home."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.runtime.artifacts import remote_checkpoints as mirror
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.manifest import MANIFEST, parse_manifest
from components.runtime.artifacts.outputs import artifact_of, check, remove_result
from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError
from components.runtime.io import storage
from components.runtime.io.files import atomic_dir
from pipelines.container.entrypoint import (
    deliver,
    params_text,
    remember_refusal,
    remembered_refusal,
    state_folder,
)
from pipelines.container.executor_io import ExecutorInput
from pipelines.steps import ARTIFACT, Step
from pipelines.trainjob.kubernetes_api import Cluster
from pipelines.trainjob.manifest import GRACE_S, Places, build, job_name, s3_uri
from pipelines.trainjob.nodes import condition
from pipelines.trainjob.settings import TrainJobSettings
from pipelines.trainjob.watch import TookTooLong, Watch, say

#: What of the launcher's environment the nodes get too, where Kubeflow tracks the run itself.
_HANDED_ON = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
# Kubernetes gives the launcher 30 s from SIGTERM to SIGKILL.
_CANCEL_S = 20.0
_GONE_S = 2.0 * GRACE_S


def launch(
    step: Step,
    given: ExecutorInput,
    settings: TrainJobSettings,
    *,
    run: str | None,
    task: str | None,
    connect: Callable[[], Cluster] = Cluster.connect,
    output_file: Path | None = None,
    poll_s: float = 5.0,
) -> None:
    """Run a step on several nodes and hand its artifact to Kubeflow.

    Args:
        step: the step, one that scales.
        given: what Kubeflow handed over; inputs and output must be kept in S3.
        settings: how to run it.
        run: the pipeline run, None where nobody named it.
        task: Kubeflow's id of the task, None where it is not known.
        connect: how to reach the cluster.
        output_file: where to write the ExecutorOutput, None for where `given` says.
        poll_s: seconds between two looks at the TrainJob.

    Raises:
        GateRefused, InputError, Interrupted: as the step on its nodes; Interrupted also after a SIGTERM,
            which cancels the TrainJob.
        OnlineVPOError: if the TrainJob failed, took too long or left no whole artifact.
    """
    if not step.scales:
        raise InputError(f"step {step.name} runs on one node only; set its nodes to 1")
    made = given.output(ARTIFACT)
    base = s3_uri(made.uri, f"output {ARTIFACT}") + ".trainjob"
    inputs = {name: s3_uri(given.input(name).uri, f"input {name}") for name in step.inputs}
    places = Places(f"{base}/params.json", inputs, f"{base}/artifact")
    # On S3 in any case: the next attempt starts on an empty disk.
    state = state_folder(run, made.path) if run and os.environ.get(mirror.VARIABLE) else base
    refused = remembered_refusal(state, step) or _published_refusal(places.out)
    if refused:
        raise GateRefused(refused)
    if not _brought_home(places.out, step, made.path):
        name = job_name(step.name, run, task, made.uri)
        handed_on = {key: os.environ[key] for key in _HANDED_ON if os.environ.get(key)}
        body = build(name, step, run, places, settings, handed_on)
        _upload(params_text(step, given), places.params)
        try:
            _run(connect(), body, settings, poll_s)
        except GateRefused as refusal:
            remember_refusal(state, step, _published_refusal(places.out) or str(refusal))
            raise
        _bring_home(places.out, step, made.path)
    deliver(step, given, output_file)


def _run(cluster: Cluster, body: dict[str, Any], settings: TrainJobSettings, poll_s: float) -> None:
    """Wait for the TrainJob `body` to be complete, creating it unless it is there.

    It is deleted if we are told to stop or it takes too long; one that failed is left for people to look at.
    """
    name = body["metadata"]["name"]
    try:
        attach(cluster, body, poll_s)
        Watch(cluster, name, settings, poll_s).until_complete()
    except TookTooLong:
        cluster.delete_job(name)
        raise
    except KeyboardInterrupt:
        # What Kubernetes sends next is SIGKILL.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted(_cancelled(cluster, name)) from None


def attach(cluster: Cluster, body: dict[str, Any], poll_s: float) -> None:
    """Make sure that the TrainJob `body` exists and can still succeed.

    One that is queued or runs is left as it is: an attempt before this one made it. One that has failed is
    replaced, and so is one that is complete, because nothing of it was found at its output.

    Raises:
        Interrupted: if one that is being deleted does not go away.
    """
    name = body["metadata"]["name"]
    patience = time.monotonic() + _GONE_S
    while True:
        found = cluster.job(name)
        if found is None:
            if cluster.create_job(body):
                nodes = body["spec"]["trainer"]["numNodes"]
                say(f"created TrainJob {name} in namespace {cluster.namespace}, {nodes} nodes")
                return
            continue
        if "deletionTimestamp" in found["metadata"]:
            if time.monotonic() > patience:
                raise Interrupted(f"TrainJob {name} of an earlier attempt is still being deleted; try again")
            time.sleep(poll_s)
            continue
        ended = next((kind for kind in ("Failed", "Complete") if condition(found, kind)), None)
        if ended is None:
            say(f"found TrainJob {name} of an earlier attempt")
            return
        say(f"TrainJob {name} of an earlier attempt is {ended} and left no result: replacing it")
        cluster.delete_job(name)


def _cancelled(cluster: Cluster, name: str) -> str:
    try:
        cluster.delete_job(name, patience_s=_CANCEL_S)
    except OnlineVPOError as error:
        return f"stopped on request, but TrainJob {name} could not be cancelled: {error}"
    return (
        f"stopped on request, TrainJob {name} is cancelled; another attempt goes on from its last checkpoint"
    )


def _upload(text: str, uri: str) -> None:
    with tempfile.TemporaryDirectory(prefix="onlinevpo-") as scratch:
        file = Path(scratch) / "params.json"
        file.write_text(text)
        storage.write_file(file, uri)


def _published_refusal(uri: str) -> str | None:
    """Why the artifact published at `uri` was refused; None if it was not, or if there is none."""
    text = storage.read_bytes(f"{uri}/{MANIFEST}")
    return None if text is None else parse_manifest(text, f"{uri}/{MANIFEST}").refused


def _brought_home(uri: str, step: Step, target: Path) -> bool:
    """Bring home what an earlier attempt published but did not hand over; False if there is nothing whole."""
    if storage.read_bytes(f"{uri}/{MANIFEST}") is None:
        return False
    try:
        _bring_home(uri, step, target)
    except OnlineVPOError as error:
        say(f"what an earlier attempt published cannot be used, the step runs again: {error}")
        return False
    return True


def _bring_home(uri: str, step: Step, target: Path) -> None:
    """Copy the artifact at `uri` to `target`, every file checked.

    Raises:
        OnlineVPOError: if it is not there or not whole.
    """
    try:
        artifact = open_artifact(uri, step=step.name)
    except InputError as error:
        raise OnlineVPOError(f"the TrainJob is complete but its result cannot be used: {error}") from error
    kind = artifact_of(step.name)
    with atomic_dir(target, lambda old: remove_result(old, kind)) as aside:
        shutil.copytree(artifact.path, aside, dirs_exist_ok=True)
        check(target, kind)
    say(f"brought {uri} to {target}")
