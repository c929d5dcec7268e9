"""Ways into the documents of a compiled pipeline."""

from __future__ import annotations

from typing import Any

from pipelines.compiler.profile import Profile
from pipelines.steps import FINISH

Documents = list[dict[str, Any]]
PLAIN = Profile(description="a test")


def executors(documents: Documents) -> dict[str, Any]:
    return {k: v["container"] for k, v in documents[0]["deploymentSpec"]["executors"].items()}


def placements(documents: Documents) -> dict[str, Any]:
    placed: dict[str, Any] = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return placed


def tasks(documents: Documents) -> dict[str, Any]:
    """Every task that runs a container, by name."""
    inner = documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return {**inner, FINISH: documents[0]["root"]["dag"]["tasks"][FINISH]}
