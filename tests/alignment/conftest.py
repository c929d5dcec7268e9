"""A tiny Wan with random weights, a reward that anyone can work out by hand, and prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.generator import Generator
from tests.alignment.tiny import make_generator, save_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny WanPipeline in a folder."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture
def new_generator(tiny_folder: Path) -> Callable[..., Generator]:
    """Make a fresh generator, its weights the same every time."""
    torch.manual_seed(0)
    return lambda **settings: make_generator(tiny_folder, **settings)
