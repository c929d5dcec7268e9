"""What a TrainJob needs to know besides its step: placement, image, secrets, patience.

The compiler writes it as one JSON text into the pipeline; the launcher reads it back in its
container. Imports neither kubernetes nor kfp.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.runtime.errors import InputError
from components.runtime.io.untrusted import parse_json
from components.runtime.params import Section, validated

#: A Kubernetes amount of CPU or bytes: "2", "500m", "1.5", "16Gi".
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
#: A name of a Kubernetes object: lower case, digits, dots and hyphens.
OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
#: The images' user and group, see images/README.md.
USER = 10001
#: Label by which Kueue knows which queue a pod or TrainJob waits in.
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


class Toleration(Section):
    """A taint that the nodes' pods put up with, in the words of the Kubernetes API."""

    key: str | None = Field(None, description="taint key; none with operator Exists tolerates every taint")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="how key and value are compared")
    value: str | None = Field(None, description="taint value, with operator Equal")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="taint effect; none matches every effect"
    )
    toleration_seconds: int | None = Field(
        None, ge=0, description="seconds that a NoExecute taint is tolerated; none: for ever"
    )


class EnvironmentSource(Section):
    """A Secret or ConfigMap of the namespace whose keys become environment variables."""

    name: str = Field(pattern=OBJECT_NAME, description="name of the object")
    env: dict[str, str] = Field(description="environment variable -> key of the object")


class NodeSettings(Section):
    """What the nodes of a step are, on one node as on several; a profile's placement says the same."""

    gpus: int = Field(
        0, ge=0, description="GPUs per node; a step that scales runs one process on each, without GPUs one"
    )
    gpu_resource: str = Field(
        "nvidia.com/gpu",
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+$",
        description="resource name that GPUs are requested by; a MIG slice or another vendor has its own",
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels that a node must have")
    tolerations: tuple[Toleration, ...] = Field((), description="taints that are tolerated")
    runtime: str = Field(
        "onlinevpo-torch",
        pattern=OBJECT_NAME,
        description="on several nodes: training runtime of the cluster (ClusterTrainingRuntime)",
    )
    timeout_minutes: int = Field(
        120, ge=1, description="minutes that one attempt may run; waiting for nodes does not count"
    )


class TrainJobSettings(NodeSettings):
    """The `--job` JSON of `python -m pipelines.trainjob`."""

    image: str = Field(min_length=1, description="image of the nodes, by digest")
    nodes: int = Field(ge=1, description="number of nodes; the launcher is meant for more than one")
    cpu: str = Field("2", pattern=QUANTITY, description="CPU cores per node, request and limit")
    memory: str = Field("4Gi", pattern=QUANTITY, description="memory per node, request and limit")
    shared_memory: str = Field(
        "2Gi", pattern=QUANTITY, description="size of each node's /dev/shm, held in memory"
    )
    cache: str = Field("10Gi", pattern=QUANTITY, description="largest size of /cache per node, on its disk")
    queue: str | None = Field(
        None, pattern=OBJECT_NAME, description="Kueue LocalQueue that admits the job; none starts it at once"
    )
    secrets: tuple[EnvironmentSource, ...] = Field((), description="environment taken from Secrets")
    config_maps: tuple[EnvironmentSource, ...] = Field((), description="environment taken from ConfigMaps")
    env: dict[str, str] = Field(
        default_factory=dict, description="further environment of the nodes; no secrets"
    )
    queue_timeout_minutes: int | None = Field(
        None, ge=1, description="minutes to wait until the nodes run; none: as long as it takes"
    )


def parse_settings(text: str) -> TrainJobSettings:
    """The settings in a JSON text.

    Raises:
        InputError: naming each bad key, what was given and what is allowed.
    """
    values = parse_json(text, "--job")
    if not isinstance(values, dict):
        raise InputError(f"--job: must be a JSON object, not {type(values).__name__}")
    return validated(TrainJobSettings, values, "--job")
