"""A tiny Wan with random weights, a reward that anyone can work out by hand, and prompts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.generator.generator import Generator
from tests.alignment.tiny import make_generator, save_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny WanPipeline in a folder."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture(scope="session")
def two_processes(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The folder in which two processes of torchrun have aligned; see `two_processes.py`."""
    out = tmp_path_factory.mktemp("two")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = Path(__file__).with_name("two_processes.py")
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(program), str(tiny_folder), str(out)],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.fixture
def new_generator(tiny_folder: Path) -> Callable[..., Generator]:
    """Make a fresh generator, its weights the same every time."""
    torch.manual_seed(0)
    return lambda **settings: make_generator(tiny_folder, **settings)
