"""A compiled pipeline as Kubernetes objects, for a server that keeps its pipelines in the Kubernetes API.

A version cannot be changed once it is there, so it is named after its content: another pipeline is another
version, and the same one is the same object.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.runtime.artifacts.outputs import check_file, starts_with
from components.runtime.errors import InputError
from components.runtime.params import canonical_json
from pipelines.lint.lint import read_pipeline, refuse_faults
from pipelines.yaml_files import dump, write_text

API_VERSION = "pipelines.kubeflow.org/v2beta1"
_MADE = "# Made by `python -m pipelines {}` from a compiled pipeline; the version's name is its digest.\n"
#: The first line of what is written, and that of the release before this one, which may be replaced too.
_HEADER, _FORMER = _MADE.format("gitops"), _MADE.format("manifests")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def write_manifests(pipeline: Path, output: Path, namespace: str) -> None:
    """Write a compiled pipeline as a Pipeline and a PipelineVersion, in the order they must be applied in.

    Args:
        pipeline: a compiled pipeline.yaml.
        output: the YAML file to write.
        namespace: namespace of the objects.

    Raises:
        InputError: if the pipeline cannot be read, a name is not one, or `output` cannot be written.
        GateRefused: if the pipeline has a fault that `lint` names.
    """
    if _NAME.fullmatch(namespace) is None:
        raise InputError(
            f"--namespace {namespace}: must be lower-case letters, digits and hyphens, at most 63"
        )
    check_file(output, "a pipeline's manifests", starts_with(_HEADER, _FORMER))
    documents = read_pipeline(pipeline)
    refuse_faults(documents, str(pipeline))
    write_text(output, _HEADER + dump(manifests(documents, namespace)))


def manifests(documents: Sequence[Mapping[str, Any]], namespace: str) -> list[dict[str, Any]]:
    """The Pipeline and the PipelineVersion of a compiled pipeline's documents."""
    spec = next(document for document in documents if "pipelineInfo" in document)
    platform = [document for document in documents if "platforms" in document]
    name, description = str(spec["pipelineInfo"]["name"]), spec["pipelineInfo"].get("description")
    # With a letter in front: 12 hex digits may read as a number in YAML.
    version = "v" + hashlib.sha256(canonical_json([spec, *platform]).encode()).hexdigest()[:12]
    about = {"description": description} if description else {}
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "Pipeline",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"displayName": name, **about},
        },
        {
            "apiVersion": API_VERSION,
            "kind": "PipelineVersion",
            "metadata": {"name": f"{name}-{version}", "namespace": namespace},
            "spec": {
                "pipelineName": name,
                "versionName": version,
                "displayName": f"{name} {version}",
                **about,
                "pipelineSpec": spec,
                **({"platformSpec": platform[0]} if platform else {}),
            },
        },
    ]
