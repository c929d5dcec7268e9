"""Settings every test runs under."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import pytest


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No tracking, no cache of the user's, no run inherited from outside; a test that wants one sets it."""
    monkeypatch.setenv("ONLINEVPO_TRACKING", "off")
    monkeypatch.setenv("ONLINEVPO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("ONLINEVPO_RUN", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """One torch thread: the tensors here are small, and results then do not depend on the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top folder of the source tree."""
    return Path(__file__).resolve().parents[1]
