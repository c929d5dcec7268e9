"""Inputs of the compiler: images that exist nowhere, small params, a folder of golden files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.compiler.compile import documents_of
from pipelines.compiler.image_digests import Images
from pipelines.compiler.profile import Profile
from pipelines.steps import FAMILIES, STEPS


@pytest.fixture(scope="session")
def images() -> Images:
    """One image per family, each with a digest of its own."""
    return Images(
        **{
            name: f"registry.example/onlinevpo-{name}@sha256:{digit * 64}"
            for name, digit in zip(FAMILIES, "abcd", strict=True)
        }
    )


@pytest.fixture
def images_file(images: Images, tmp_path: Path) -> Path:
    """The same as the build script writes it."""
    file = tmp_path / "images.yaml"
    file.write_text(yaml.safe_dump(images.model_dump()))
    return file


@pytest.fixture(scope="session")
def sections() -> dict[str, Any]:
    """`run` and a section for each step, too small to be params; the seed is one that a float cannot hold."""
    return {"run": {"seed": 2**53 + 1}} | {step.name: {"of": step.name} for step in STEPS}


@pytest.fixture(scope="session")
def compiled_plain(sections: dict[str, Any], images: Images) -> list[dict[str, Any]]:
    """These params compiled for a profile that says nothing; not to be changed."""
    return documents_of(sections, Profile(description="a test"), images)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of compiled pipelines that a change must not alter unseen."""
    return Path(__file__).parent / "golden"
