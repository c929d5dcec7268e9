"""What an object of each kind may hold.

Kubernetes' own kinds: the schemas that kubernetes-validate ships, strict, for the oldest and the newest
version we say we run on. Kubeflow Trainer's: its own models. Kueue's: the few fields that we use, typed here
after the reference of kueue.x-k8s.io/v1beta2 (Kueue 0.19); a field beside them is an error, to be looked up
and added.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import kubernetes_validate
from kubeflow_trainer_api import models
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from tests.manifests.rendering import Object

KUBERNETES = ("1.34", "1.37")
TRAINER = "trainer.kubeflow.org/v1alpha1"
KUEUE = "kueue.x-k8s.io/v1beta2"
_TRAINER_KINDS: dict[str, Any] = {
    "ClusterTrainingRuntime": models.TrainerV1alpha1ClusterTrainingRuntime,
    "TrainingRuntime": models.TrainerV1alpha1TrainingRuntime,
    "TrainJob": models.TrainerV1alpha1TrainJob,
}

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=253)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")] | int


class _Kueue(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(_Kueue):
    name: Name
    namespace: Name | None = None
    labels: dict[str, str] = Field(default_factory=dict)


class Toleration(_Kueue):
    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class ResourceFlavorSpec(_Kueue):
    nodeLabels: dict[str, str] = Field(default_factory=dict, max_length=8)
    tolerations: list[Toleration] = Field(default_factory=list, max_length=8)


class ResourceQuota(_Kueue):
    name: str
    nominalQuota: Quantity


class FlavorQuotas(_Kueue):
    name: Name
    resources: list[ResourceQuota] = Field(min_length=1, max_length=64)


class ResourceGroup(_Kueue):
    coveredResources: list[str] = Field(min_length=1, max_length=64)
    flavors: list[FlavorQuotas] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _flavors_cover_in_order(self) -> ResourceGroup:
        for flavor in self.flavors:
            if [r.name for r in flavor.resources] != self.coveredResources:
                raise ValueError(f"flavor {flavor.name} must list the covered resources, in their order")
        return self


class Selector(_Kueue):
    matchLabels: dict[str, str]


class Preemption(_Kueue):
    withinClusterQueue: Literal["Never", "LowerPriority", "LowerOrNewerEqualPriority"] = "Never"
    reclaimWithinCohort: Literal["Never", "LowerPriority", "Any"] = "Never"


class ClusterQueueSpec(_Kueue):
    namespaceSelector: Selector
    queueingStrategy: Literal["StrictFIFO", "BestEffortFIFO"]
    preemption: Preemption
    resourceGroups: list[ResourceGroup] = Field(max_length=16)


class LocalQueueSpec(_Kueue):
    clusterQueue: Name


class ResourceFlavor(_Kueue):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]
    kind: Literal["ResourceFlavor"]
    metadata: Metadata
    spec: ResourceFlavorSpec = ResourceFlavorSpec()


class ClusterQueue(_Kueue):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]
    kind: Literal["ClusterQueue"]
    metadata: Metadata
    spec: ClusterQueueSpec


class LocalQueue(_Kueue):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]
    kind: Literal["LocalQueue"]
    metadata: Metadata
    spec: LocalQueueSpec


_KUEUE_KINDS: dict[str, type[_Kueue]] = {
    "ResourceFlavor": ResourceFlavor,
    "ClusterQueue": ClusterQueue,
    "LocalQueue": LocalQueue,
}


def invalid(thing: Object) -> str | None:
    """Why an object is not what its kind allows, None if it is."""
    kind, group = thing["kind"], thing["apiVersion"]
    try:
        if group == TRAINER:
            # These models drop what they do not know, as the API server does: what is lost was a mistake.
            back = _TRAINER_KINDS[kind].from_dict(thing).to_dict()
            return None if back == thing else f"dropped or changed: {_difference(thing, back)}"
        if group == KUEUE:
            _KUEUE_KINDS[kind].model_validate(thing)
            return None
        for version in KUBERNETES:
            kubernetes_validate.validate(thing, version, strict=True)
    except (
        ValidationError,
        kubernetes_validate.ValidationError,
        kubernetes_validate.SchemaNotFoundError,
    ) as error:
        return f"{type(error).__name__}: {error}"
    except KeyError:
        return f"unknown kind {kind} of {group}"
    return None


def _difference(given: Any, back: Any, path: str = "") -> str:
    if isinstance(given, dict) and isinstance(back, dict):
        for key in given:
            if given[key] != back.get(key):
                return _difference(given[key], back.get(key), f"{path}.{key}")
    if isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        for index, (one, other) in enumerate(zip(given, back, strict=True)):
            if one != other:
                return _difference(one, other, f"{path}[{index}]")
    return path or "."
