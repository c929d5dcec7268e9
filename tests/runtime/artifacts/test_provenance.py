"""Versions that a manifest names."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import pytest

from components.runtime.artifacts import provenance


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    provenance.library_versions.cache_clear()
    yield
    provenance.library_versions.cache_clear()


def test_versions_are_the_installed_ones() -> None:
    found = provenance.library_versions()
    assert found["torch"] == metadata.version("torch")
    assert found["mlflow"] == metadata.version("mlflow")


def test_an_image_with_the_client_alone_names_mlflow_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "mlflow-skinny":
            raise metadata.PackageNotFoundError(name)
        return "9.9"

    monkeypatch.setattr(provenance.metadata, "version", version)
    assert provenance.library_versions() == {"mlflow": "9.9"}
