"""A profile: where each step runs, what it may use there, and what such a setting changes in the params.

What is computed is the params' business alone: moving a step to a larger node leaves Kubeflow's cache of it
whole. Only the number of its processes, and all of a TrainJob, are in its command and so in its cache key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from kubernetes.utils.quantity import parse_quantity
from pydantic import AfterValidator, Field, model_validator

from components.params import load_params
from components.runtime.errors import InputError
from components.runtime.params import Section, validated
from pipelines.steps import FINISH, STEPS
from pipelines.trainjob.settings import OBJECT_NAME, EnvironmentSource, NodeSettings
from pipelines.yaml_files import read_mapping

PROFILES = Path(__file__).resolve().parents[1] / "profiles"

#: What Kubeflow's compiler accepts, which is less than what Kubernetes does.
_CPU = r"^([0-9]*\.)?[0-9]+m?$"
_BYTES = r"^[0-9]+(Ki|Mi|Gi|Ti|K|M|G|T)?$"


def _positive(amount: str) -> str:
    if parse_quantity(amount) <= 0:
        raise ValueError("must be more than nothing")
    return amount


Cpu = Annotated[str, Field(pattern=_CPU), AfterValidator(_positive)]
Bytes = Annotated[str, Field(pattern=_BYTES), AfterValidator(_positive)]

#: Names and keys of the objects that manifests/ provides.
SECRETS = (
    EnvironmentSource(
        name="onlinevpo-s3", env={"AWS_ACCESS_KEY_ID": "access-key", "AWS_SECRET_ACCESS_KEY": "secret-key"}
    ),
    EnvironmentSource(
        name="onlinevpo-mlflow",
        env={"MLFLOW_TRACKING_USERNAME": "username", "MLFLOW_TRACKING_PASSWORD": "password"},
    ),
)
CONFIG_MAPS = (
    EnvironmentSource(
        name="onlinevpo",
        env={
            "AWS_ENDPOINT_URL_S3": "s3-endpoint",
            "AWS_REGION": "s3-region",
            "MLFLOW_TRACKING_URI": "mlflow-tracking-uri",
            "ONLINEVPO_CHECKPOINTS": "checkpoints",
        },
    ),
)


class Resources(Section):
    """What one container gets; requests and limits are equal, so that it is never the first to be evicted."""

    cpu: Cpu = Field("2", description='CPU cores: "2", "0.5" or "500m"')
    memory: Bytes = Field("4Gi", description="memory; what lies in /dev/shm counts towards it")
    shared_memory: Bytes = Field("2Gi", description="largest size of /dev/shm, held in memory")
    cache: Bytes = Field("10Gi", description="largest size of /cache and of /tmp, each, on the node's disk")

    @model_validator(mode="after")
    def _fits(self) -> Resources:
        if parse_quantity(self.shared_memory) >= parse_quantity(self.memory):
            raise ValueError(
                f"shared_memory {self.shared_memory} must be less than memory {self.memory}, which holds it"
            )
        return self


class Placement(Resources, NodeSettings):
    """Where one step runs, and how often it is tried."""

    nodes: int = Field(1, ge=1, description="nodes; above 1 the step becomes a TrainJob")
    queue_minutes: int = Field(
        7 * 24 * 60,
        ge=1,
        description="with nodes above 1: further minutes that the job may wait until its nodes run",
    )
    retries: int = Field(2, ge=0, le=20, description="further attempts after a failure; each resumes")
    retry_delay_seconds: int = Field(
        30, ge=0, description="seconds before the first further attempt; doubles with each"
    )


class Profile(Section):
    """One real setting: hardware, queue, secrets, and what it changes in the params."""

    description: str = Field(
        min_length=1, max_length=200, pattern=r"^[^\n]+$", description="what it is for, in a line"
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="params over those of the params file; --set wins over them"
    )
    secrets: tuple[EnvironmentSource, ...] = Field(
        SECRETS, description="environment of every task, from Secrets of the namespace"
    )
    config_maps: tuple[EnvironmentSource, ...] = Field(
        CONFIG_MAPS, description="environment of every task, from ConfigMaps of the namespace"
    )
    queue: str | None = Field(
        None, pattern=OBJECT_NAME, description="Kueue LocalQueue that admits the steps; none: no queue"
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="when a node fetches an image it has; images are named by digest"
    )
    image_pull_secrets: tuple[str, ...] = Field(
        (), description="Secrets with the credentials of a private registry"
    )
    launcher: Resources = Field(
        Resources(cpu="1", memory="2Gi", shared_memory="64Mi"),
        description="the pod that creates and follows a TrainJob, for steps on several nodes",
    )
    steps: dict[str, Placement] = Field(
        default_factory=dict, description="placement by step, and of the exit handler as `finish`"
    )

    @model_validator(mode="after")
    def _possible(self) -> Profile:
        scaling = {step.name: step.scales for step in STEPS} | {FINISH: False}
        able = ", ".join(name for name, scales in scaling.items() if scales)
        for name, place in self.steps.items():
            if name not in scaling:
                raise ValueError(f"steps.{name}: no such step; allowed: {', '.join(scaling)}")
            if place.nodes > 1 and not scaling[name]:
                raise ValueError(
                    f"steps.{name}.nodes = {place.nodes}: must be 1; on several nodes run {able}"
                )
            if place.gpus > 1 and not scaling[name]:
                raise ValueError(
                    f"steps.{name}.gpus = {place.gpus}: must be 0 or 1, it is one process; more take {able}"
                )
        return self

    def place(self, name: str) -> Placement:
        """The placement of a step or of `finish`; the defaults where the profile says nothing."""
        return self.steps.get(name) or Placement()

    def overrides(self) -> list[str]:
        """`params` as "section.key=value" texts, to go between the params file and `--set`."""
        return [f"{key}={json.dumps(value)}" for key, value in _leaves(self.params)]


def load_profile(profile: str) -> Profile:
    """The profile in a YAML file, or the one of that name in pipelines/profiles.

    Raises:
        InputError: if there is none, or a key or value in it is wrong, its params included.
    """
    path = Path(profile) if "/" in profile or profile.endswith((".yaml", ".yml")) else _named(profile)
    loaded = validated(Profile, read_mapping(path, "profile"), str(path))
    try:
        load_params(None, loaded.overrides())
    except InputError as error:
        raise InputError(f"profile {path}: params: {str(error).removeprefix('--set ')}") from None
    return loaded


def profile_names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def _named(name: str) -> Path:
    if name not in profile_names():
        raise InputError(
            f"--profile {name}: no such profile; allowed: a YAML file, {', '.join(profile_names())}"
        )
    return PROFILES / f"{name}.yaml"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
