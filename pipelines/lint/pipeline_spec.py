"""A compiled pipeline as plain values, and ways through it: its components, tasks, containers, settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_REFERENCE = re.compile(
    r"""(?P<name>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)
        (?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?
        @sha256:(?P<digest>[0-9a-f]{64})""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class TaskSpec:
    """A task, where it stands, the component around it and the one it runs ({} if there is no such)."""

    where: str
    name: str
    spec: dict[str, Any]
    parent: dict[str, Any]
    component: dict[str, Any]


@dataclass(frozen=True)
class PipelineSpec:
    """A compiled pipeline as plain values: the pipeline's document and the platform's ({} without one)."""

    pipeline: dict[str, Any]
    platform: dict[str, Any]

    @property
    def components(self) -> dict[str, dict[str, Any]]:
        return dict(self.pipeline.get("components") or {})

    @property
    def executors(self) -> dict[str, dict[str, Any]]:
        return dict((self.pipeline.get("deploymentSpec") or {}).get("executors") or {})

    @property
    def placements(self) -> dict[str, dict[str, Any]]:
        """The Kubernetes settings of each executor."""
        kubernetes = (self.platform.get("platforms") or {}).get("kubernetes") or {}
        return dict((kubernetes.get("deploymentSpec") or {}).get("executors") or {})

    def located(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every component and where it stands, the root first."""
        yield "root", self.pipeline["root"]
        for name, component in sorted(self.components.items()):
            yield f"components.{name}", component

    def tasks(self) -> Iterator[TaskSpec]:
        for where, parent in self.located():
            for name, spec in sorted(tasks_of(parent).items()):
                component = self.components.get(component_of(spec), {})
                yield TaskSpec(f"{where}.dag.tasks.{name}", name, spec, parent, component)

    def containers(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Label, place and content of every container."""
        for label, executor in sorted(self.executors.items()):
            if "container" in executor:
                yield label, f"deploymentSpec.executors.{label}.container", executor["container"]

    def container_of(self, component: Mapping[str, Any]) -> dict[str, Any] | None:
        """The container that a component runs, None if it is something else."""
        return self.executors.get(str(component.get("executorLabel")), {}).get("container")


def tasks_of(component: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return dict((component.get("dag") or {}).get("tasks") or {})


def component_of(task: Mapping[str, Any]) -> str:
    return str((task.get("componentRef") or {}).get("name"))


def inputs_of(subject: Mapping[str, Any], kind: str, key: str = "inputDefinitions") -> dict[str, Any]:
    """The `parameters` or `artifacts` of a component's definitions or of a task's inputs."""
    return dict((subject.get(key) or {}).get(kind) or {})


def is_pinned(reference: str) -> bool:
    """Whether an image reference names one image for ever: by digest, and not as `latest`."""
    match = _REFERENCE.fullmatch(reference)
    return match is not None and match["tag"] != "latest"
