"""The GitOps objects: what Kubeflow's own compiler writes, under names that follow the content."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.compiler import Compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from components.runtime.errors import GateRefused, InputError
from pipelines.compiler.compile import as_text
from pipelines.compiler.dag import pipeline
from pipelines.compiler.gitops import manifests, write_manifests
from pipelines.compiler.image_digests import Images
from pipelines.compiler.profile import Profile
from pipelines.lint.lint import findings

PLAIN = Profile(description="a test")

#: The fields of the two custom resources of Kubeflow Pipelines 2.17, read from their definitions.
FIELDS = {
    "Pipeline": {"displayName", "description", "tags"},
    "PipelineVersion": {
        "codeSourceURL",
        "description",
        "displayName",
        "pipelineName",
        "pipelineSpec",
        "pipelineSpecURI",
        "platformSpec",
        "tags",
        "versionName",
    },
}


@pytest.fixture
def compiled_file(compiled_plain: list[dict[str, Any]], tmp_path: Path) -> Path:
    file = tmp_path / "pipeline.yaml"
    file.write_text(as_text(compiled_plain))
    return file


def test_the_specs_are_those_of_kubeflow_s_own_compiler(
    sections: dict[str, Any], images: Images, compiled_plain: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "kubeflow.yaml"
    options = KubernetesManifestOptions(
        pipeline_version_name="v1", namespace="onlinevpo", include_pipeline_manifest=True
    )
    built = pipeline(sections, PLAIN, images)
    Compiler().compile(built, str(file), kubernetes_manifest_options=options, kubernetes_manifest_format=True)
    theirs = list(yaml.safe_load_all(file.read_text()))
    ours = manifests(compiled_plain, "onlinevpo")
    assert ours[0] == theirs[0]
    assert (ours[1]["apiVersion"], ours[1]["kind"]) == (theirs[1]["apiVersion"], theirs[1]["kind"])
    for key in ("pipelineName", "pipelineSpec", "platformSpec", "description"):
        assert ours[1]["spec"][key] == theirs[1]["spec"][key]


def test_objects_have_only_the_fields_of_their_definitions(compiled_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "manifests.yaml"
    write_manifests(compiled_file, output, "team-a")
    objects = list(yaml.safe_load_all(output.read_text()))
    assert [o["kind"] for o in objects] == ["Pipeline", "PipelineVersion"], (
        "a version needs its pipeline first"
    )
    for one in objects:
        assert set(one["spec"]) <= FIELDS[one["kind"]]
        assert one["metadata"]["namespace"] == "team-a"
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", one["metadata"]["name"])
    version = objects[1]
    assert version["metadata"]["name"] == f"{objects[0]['metadata']['name']}-{version['spec']['versionName']}"
    assert isinstance(version["spec"]["versionName"], str)
    assert findings([version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]]) == []


def test_a_version_is_named_after_its_content(compiled_plain: list[dict[str, Any]]) -> None:
    def name(documents: list[dict[str, Any]]) -> str:
        version: str = manifests(documents, "onlinevpo")[1]["metadata"]["name"]
        return version

    other = copy.deepcopy(compiled_plain)
    other[0]["root"]["inputDefinitions"]["parameters"]["run_params"]["defaultValue"] = '{"seed":1}'
    moved = copy.deepcopy(compiled_plain)
    moved[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-reward"]["nodeSelector"] = {}
    assert name(compiled_plain) == name(copy.deepcopy(compiled_plain))
    assert len({name(compiled_plain), name(other), name(moved)}) == 3


def test_a_faulty_pipeline_is_refused_and_nothing_written(compiled_file: Path, tmp_path: Path) -> None:
    text = compiled_file.read_text()
    compiled_file.write_text(re.sub(r"onlinevpo-model@sha256:b+", "onlinevpo-model:1", text))
    with pytest.raises(GateRefused, match="3 faults"):
        write_manifests(compiled_file, tmp_path / "manifests.yaml", "onlinevpo")
    assert not (tmp_path / "manifests.yaml").exists()


@pytest.mark.parametrize("namespace", ["", "Team A", "-a", "a" * 64])
def test_a_namespace_is_a_name(namespace: str, compiled_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--namespace"):
        write_manifests(compiled_file, tmp_path / "manifests.yaml", namespace)


def test_the_command(repository: Path, compiled_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "manifests", str(compiled_file), "-o", "manifests.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "manifests.yaml"), done.stderr
    objects = list(yaml.safe_load_all((tmp_path / "manifests.yaml").read_text()))
    assert {o["metadata"]["namespace"] for o in objects} == {"onlinevpo"}
