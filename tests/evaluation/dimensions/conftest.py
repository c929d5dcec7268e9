"""Fixtures of tests of dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from components.evaluation.models import ModelStore


@pytest.fixture
def store(tiny_weights: Path) -> ModelStore:
    return ModelStore(str(tiny_weights))


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield
