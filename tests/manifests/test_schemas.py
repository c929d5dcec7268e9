"""Every overlay renders, and every object in it is one that its API would take."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.manifests.rendering import (
    MANIFESTS,
    OVERLAYS,
    Object,
    named,
    needs_kubectl,
    overlay,
    render,
    title,
)
from tests.manifests.schemas import invalid


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_is_valid(name: str) -> None:
    objects = overlay(name)
    assert {title(o): reason for o in objects if (reason := invalid(o))} == {}
    assert len(objects) == len({(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in objects})


def test_every_overlay_is_tested() -> None:
    assert sorted(p.name for p in (MANIFESTS / "overlays").iterdir()) == sorted(OVERLAYS)


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_differ_where_they_should(name: str) -> None:
    kinds = {o["kind"] for o in overlay(name)}
    assert "ClusterTrainingRuntime" in kinds
    assert ("ClusterQueue" in kinds) == (name == "gpu-cluster")
    assert ("object-store" in {o["metadata"]["name"] for o in overlay(name)}) == (name == "local")


@needs_kubectl
def test_a_broken_kustomization_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    with pytest.raises(subprocess.CalledProcessError):
        render(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "mlflow", ("spec", "replica"), 2),
        ("Deployment", "mlflow", ("spec", "replicas"), "2"),
        ("NetworkPolicy", "mlflow", ("spec", "policyType"), ["Ingress"]),
        ("StatefulSet", "postgres", ("spec", "template", "spec", "container"), []),
        ("ClusterTrainingRuntime", "onlinevpo-torch", ("spec", "mlPolicy", "torch", "numProcPerNode"), 2),
        ("ClusterTrainingRuntime", "onlinevpo-torch", ("spec", "template", "spec", "replicas"), 2),
        ("ClusterQueue", "onlinevpo", ("spec", "cohort"), "all"),
        ("ClusterQueue", "onlinevpo", ("spec", "resourceGroups", 0, "coveredResources"), ["cpu"]),
        ("ResourceFlavor", "onlinevpo-gpu", ("spec", "nodeLabel"), {}),
        ("LocalQueue", "onlinevpo", ("spec", "clusterQueue"), 1),
    ],
)
def test_a_misspelt_or_wrong_field_is_found(
    kind: str, name: str, path: tuple[str | int, ...], value: object
) -> None:
    thing = named(overlay("gpu-cluster"), kind, name)
    assert invalid(thing) is None
    target: Object = thing
    for part in path[:-1]:
        target = target[part]  # type: ignore[index]
    target[path[-1]] = value  # type: ignore[index]
    assert invalid(thing) is not None


def test_the_queue_fits_in_the_quota() -> None:
    """Whoever the queue admits must not then be refused by the namespace."""
    objects = overlay("gpu-cluster")
    (group,) = named(objects, "ClusterQueue", "onlinevpo")["spec"]["resourceGroups"]
    hard = named(objects, "ResourceQuota", "onlinevpo")["spec"]["hard"]
    admitted = {
        resource: sum(_amount(f["resources"][i]["nominalQuota"]) for f in group["flavors"])
        for i, resource in enumerate(group["coveredResources"])
    }
    assert admitted["cpu"] < _amount(hard["requests.cpu"])
    assert admitted["memory"] < _amount(hard["requests.memory"])
    assert admitted["memory"] < _amount(hard["limits.memory"])
    assert admitted["nvidia.com/gpu"] <= _amount(hard["requests.nvidia.com/gpu"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_volumes_fit_in_the_quota(name: str) -> None:
    objects = overlay(name)
    hard = named(objects, "ResourceQuota", "onlinevpo")["spec"]["hard"]
    claims = [c for o in objects for c in o.get("spec", {}).get("volumeClaimTemplates", [])]
    ours = sum(_amount(c["spec"]["resources"]["requests"]["storage"]) for c in claims)
    kubeflow = 2 * _amount("20Gi")  # its MySQL and its own object store
    assert ours + kubeflow <= _amount(hard["requests.storage"])
    assert len(claims) + 2 <= _amount(hard["persistentvolumeclaims"])


def _amount(text: str | int) -> float:
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    number = str(text)
    for unit, size in units.items():
        if number.endswith(unit):
            return float(number.removesuffix(unit)) * size
    return float(number)


def test_what_kubeflow_pipelines_leaves_out_is_ours() -> None:
    """The objects deleted from Kubeflow's own are those that we, or secrets/create, put in their place."""
    folder = MANIFESTS / "kubeflow-pipelines"
    patches = yaml.safe_load((folder / "kustomization.yaml").read_text())["patches"]
    deleted = {(p["target"]["kind"], p["target"]["name"]) for p in patches if "$patch: delete" in p["patch"]}
    ours = {(o["kind"], o["metadata"]["name"]) for o in overlay("local")}
    script = (MANIFESTS / "secrets" / "create").read_text()
    assert len(deleted) == 5
    for kind, name in deleted - {("RoleBinding", "pipeline-runner-binding")}:
        assert (kind, name) in ours or (kind == "Secret" and f"secret {name} " in script)
