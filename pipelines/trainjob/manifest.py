"""The TrainJob object: its name, what its nodes run, and how they are placed. Pure values, no cluster.

Written for trainer.kubeflow.org/v1alpha1 as Kubeflow Trainer 2.3 defines it (kubeflow-trainer-api 2.3.0).
It changes with every minor version: older ones had `podTemplateOverrides`, which 2.3 drops without a word.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubeflow_trainer_api import models

from components.runtime.errors import InputError
from pipelines.container.entrypoint import RUN_VARIABLE
from pipelines.steps import Step
from pipelines.trainjob.settings import QUEUE_LABEL, USER, Toleration, TrainJobSettings

GROUP, VERSION, PLURAL, KIND = "trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"
#: The runtime's replicated job, and the container in it, that hold a node; names fixed by Kubeflow Trainer.
NODE = "node"
RUN_KEY, STEP_KEY, OUTPUT_KEY = "onlinevpo/run", "onlinevpo/step", "onlinevpo/output"
#: Who owns our part of the runtime patches; must look like a path with a domain.
MANAGER = "onlinevpo/trainjob"

# JobSet appends -node-0-<index>-<5 characters> to make pod names, which may have 63; this leaves 9999 nodes.
_LONGEST_NAME = 45
#: Seconds a node may take to save a checkpoint once told to stop.
GRACE_S = 300
# The first node waits this long for the last: nodes are added and images pulled at their own pace.
_RENDEZVOUS_S = 1800
# Should the launcher be gone for good, a job that hangs gives its nodes back a day after its time.
_ORPHAN_S = 24 * 3600
_RESERVED = re.compile(r"^PET_")


@dataclass(frozen=True)
class Places:
    """Where the nodes read and write, all s3:// URIs.

    Attributes:
        params: the params file.
        inputs: the artifact of each step that is read, by the step's name.
        out: where the artifact is published.
    """

    params: str
    inputs: Mapping[str, str]
    out: str


def s3_uri(uri: str, what: str) -> str:
    """The s3:// URI of what Kubeflow keeps at `uri`; minio:// is its word for the same store.

    Raises:
        InputError: if it is kept elsewhere, where the nodes cannot reach it.
    """
    scheme, separator, rest = uri.partition("://")
    bucket_and_key = rest.partition("?")[0].rstrip("/")  # the store's settings come from the environment
    if separator and scheme in ("s3", "minio") and bucket_and_key:
        return f"s3://{bucket_and_key}"
    raise InputError(
        f"{what} at {uri or 'no URI'}: the nodes of a TrainJob share no disk and need an s3:// place; "
        "run on a cluster whose pipeline root is s3://, or set the step's nodes to 1"
    )


def job_name(step: str, run: str | None, task: str | None, output: str) -> str:
    """The name of the TrainJob of one task of one run: the same at each attempt, never shared by two.

    Args:
        step: the step's name.
        run: the run, any text; what fits of it stays readable.
        task: Kubeflow's id of the task, None where it is not known.
        output: URI of the task's output artifact, which Kubeflow makes unique.
    """
    mark = hashlib.sha256("\n".join((step, run or "", task or "", output)).encode()).hexdigest()[:8]
    room = _LONGEST_NAME - len(step) - len(mark) - 2
    readable = re.sub(r"[^a-z0-9]+", "-", (run or "").lower())[:room].strip("-")
    return "-".join(part for part in (step, readable, mark) if part)


def node_command(step: Step, places: Places, settings: TrainJobSettings) -> list[str]:
    """What every node runs. The number of nodes and processes, rank and address come from PET_* variables."""
    inputs = [part for name in step.inputs for part in (f"--{name}", places.inputs[name])]
    return [
        "python", "-m", "pipelines.trainjob.torchrun",
        "--rdzv-conf", f"timeout={_RENDEZVOUS_S}",
        "--shutdown-timeout", str(GRACE_S - 30),
        "-m", f"components.{step.name}", "run", "--params", places.params, *inputs, "--out", places.out,
    ]  # fmt: skip


def build(
    name: str,
    step: Step,
    run: str | None,
    places: Places,
    settings: TrainJobSettings,
    env: Mapping[str, str],
) -> dict[str, Any]:
    """The TrainJob as the JSON value to create.

    Args:
        name: from `job_name`.
        step: what the nodes run.
        run: the pipeline run, for people and for tracking; None where nobody named it.
        places: what they read and write.
        settings: placement, image, secrets.
        env: environment that the launcher hands on; `settings.env` wins.

    Raises:
        InputError: if the environment holds variables that belong to the trainer.
    """
    known = {RUN_VARIABLE: run} if run else {}
    environment = {"PYTHONUNBUFFERED": "1", **known, **env, **settings.env}
    variables = _variables(environment, settings)
    labels = {
        "app.kubernetes.io/name": step.name,
        "app.kubernetes.io/part-of": "onlinevpo",
        "app.kubernetes.io/managed-by": "onlinevpo-trainjob",
        STEP_KEY: step.name,
    }
    if run:
        labels[RUN_KEY] = _label_value(run)
    body = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {
            "name": name,
            "labels": {**labels, **({QUEUE_LABEL: settings.queue} if settings.queue else {})},
            "annotations": {RUN_KEY: run or "", STEP_KEY: step.name, OUTPUT_KEY: places.out},
        },
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": settings.runtime},
            "trainer": {
                "image": settings.image,
                "command": node_command(step, places, settings),
                "env": variables,
                "numNodes": settings.nodes,
                # Without it the torch runtime starts one process per CPU core where there is no GPU.
                "numProcPerNode": max(1, settings.gpus),
                "resourcesPerNode": _resources(settings),
            },
            "runtimePatches": [_patch(settings, labels)],
            # Counted by the trainer from creation, or from admission by a queue: a net, not the timeout.
            "activeDeadlineSeconds": 60 * settings.timeout_minutes
            + max(60 * (settings.queue_timeout_minutes or 0), _ORPHAN_S),
            # A queue admits a job by taking this back.
            **({"suspend": True} if settings.queue else {}),
        },
    }
    job = models.TrainerV1alpha1TrainJob.from_dict(body)
    assert job is not None
    return job.to_dict()


def _variables(environment: Mapping[str, str], settings: TrainJobSettings) -> list[dict[str, Any]]:
    """The nodes' environment in order of name, so that the same job is the same text."""
    found: dict[str, dict[str, Any]] = {name: {"value": text} for name, text in environment.items()}
    for kind, sources in (("configMapKeyRef", settings.config_maps), ("secretKeyRef", settings.secrets)):
        for source in sources:
            for name, key in source.env.items():
                found[name] = {"valueFrom": {kind: {"name": source.name, "key": key}}}
    reserved = sorted(name for name in found if _RESERVED.match(name))
    if reserved:
        raise InputError(
            f"--job: environment {', '.join(reserved)}: set by Kubeflow Trainer, not allowed here"
        )
    return [{"name": name, **found[name]} for name in sorted(found)]


def _resources(settings: TrainJobSettings) -> dict[str, dict[str, str]]:
    amounts = {"cpu": settings.cpu, "memory": settings.memory}
    if settings.gpus:
        amounts[settings.gpu_resource] = str(settings.gpus)
    return {"requests": amounts, "limits": amounts}


def _patch(settings: TrainJobSettings, labels: Mapping[str, str]) -> dict[str, Any]:
    """What of a node's pod is ours to say; lists merge into the runtime's by volume name and mount path."""
    volumes = {
        "/dev/shm": ("shm", {"medium": "Memory", "sizeLimit": settings.shared_memory}),
        "/cache": ("cache", {"sizeLimit": settings.cache}),
        "/tmp": ("tmp", {}),
    }
    container = {
        "name": NODE,
        "volumeMounts": [{"name": name, "mountPath": path} for path, (name, _) in volumes.items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: dict[str, Any] = {
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": disk} for name, disk in volumes.values()],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": GRACE_S,
    }
    if settings.node_selector:
        pod["nodeSelector"] = dict(settings.node_selector)
    if settings.tolerations:
        pod["tolerations"] = [_toleration(toleration) for toleration in settings.tolerations]
    node = {
        "name": NODE,
        "template": {"spec": {"template": {"metadata": {"labels": dict(labels)}, "spec": pod}}},
    }
    return {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [node]}}}}


def _toleration(toleration: Toleration) -> dict[str, Any]:
    values = toleration.model_dump(exclude={"toleration_seconds"}, exclude_none=True)
    if toleration.toleration_seconds is not None:
        values["tolerationSeconds"] = toleration.toleration_seconds
    return values


def _label_value(text: str) -> str:
    """`text` as a label's value: at most 63 letters, digits, hyphens, dots and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-._")
