"""Looks for what compiler and server let pass in a compiled pipeline, and what is then found out at night."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components.runtime.errors import GateRefused, InputError, one_line
from pipelines.lint.pipeline_spec import PipelineSpec
from pipelines.lint.places import local_places_compiled_in
from pipelines.lint.rules import RULES, Finding
from pipelines.yaml_files import read_documents

__all__ = ["Finding", "findings", "lint_or_refuse", "read_pipeline", "refuse_faults"]


def lint_or_refuse(path: Path) -> None:
    """Look for faults in a compiled pipeline.yaml and print each in a line.

    Raises:
        InputError: if the file cannot be read or is no compiled pipeline.
        GateRefused: if it has faults.
    """
    refuse_faults(read_pipeline(path), str(path))


def refuse_faults(documents: Sequence[Mapping[str, Any]], name: str, *, cluster: bool = True) -> None:
    """Print each fault of a compiled pipeline in a line on stderr.

    Args:
        documents, name, cluster: as of `findings`.

    Raises:
        InputError: if the documents are no compiled pipeline.
        GateRefused: if there are faults.
    """
    found = findings(documents, name, cluster=cluster)
    for finding in found:
        print(finding, file=sys.stderr)
    if found:
        raise GateRefused(f"{name}: {len(found)} fault{'s' if len(found) > 1 else ''}, see above")


def findings(
    documents: Sequence[Mapping[str, Any]], name: str = "pipeline", *, cluster: bool = True
) -> list[Finding]:
    """Every fault in a compiled pipeline.

    Args:
        documents: the pipeline's document and, if it has one, the platform's.
        name: what to call it in an error.
        cluster: whether its pods run elsewhere; False: on this machine, whose files they may name.

    Raises:
        InputError: if the documents are no compiled pipeline.
    """
    rules = [*RULES, local_places_compiled_in] if cluster else RULES
    compiled = _parsed(documents, name)
    try:
        return [finding for look in rules for finding in look(compiled)]
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        # Kubeflow's message lets containers and their settings be any JSON; the rules go by what they are.
        raise InputError(f"{name}: not a compiled pipeline: {type(error).__name__}: {error}") from error


def read_pipeline(path: Path) -> list[dict[str, Any]]:
    """The documents of a compiled pipeline.yaml.

    Raises:
        InputError: if the file cannot be read or is no compiled pipeline.
    """
    documents = read_documents(path, "pipeline")
    _parsed(documents, str(path))
    return documents


def _parsed(documents: Sequence[Any], name: str) -> PipelineSpec:
    """The documents in Kubeflow's own spelling, told apart and checked against its two messages."""
    what = "must be a compiled pipeline (`python -m pipelines compile`)"
    pipelines = [d for d in documents if isinstance(d, Mapping) and "pipelineInfo" in d and "root" in d]
    platforms = [d for d in documents if isinstance(d, Mapping) and "platforms" in d]
    if len(pipelines) != 1:
        raise InputError(f"{name}: {len(pipelines) or 'no'} documents with pipelineInfo and root; {what}")
    if len(platforms) > 1 or len(documents) > 1 + len(platforms):
        raise InputError(
            f"{name}: {len(documents)} documents; {what}, with at most one of `platforms` beside it"
        )
    return PipelineSpec(
        _as(pipeline_spec_pb2.PipelineSpec(), pipelines[0], name),
        _as(pipeline_spec_pb2.PlatformSpec(), platforms[0], name) if platforms else {},
    )


def _as(message: Any, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json_format.MessageToDict(json_format.ParseDict(dict(document), message))
    except json_format.ParseError as error:
        raise InputError(f"{name}: not a compiled pipeline: {one_line(error)}") from None
    return plain
