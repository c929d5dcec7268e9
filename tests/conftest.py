"""Settings every test runs under."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# As `components.runtime.compute.devices.configure_determinism` has it, which comes too late here.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

import pytest

from tests.s3 import Store, serving

# Processes a shell starts in the background are deaf to Ctrl-C, and their children too; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No tracking, no cache of the user's, no run inherited from outside; a test that wants one sets it."""
    monkeypatch.setenv("ONLINEVPO_TRACKING", "off")
    monkeypatch.setenv("ONLINEVPO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in (
        "ONLINEVPO_CHECKPOINTS",
        "ONLINEVPO_RUN",
        "MLFLOW_RUN_ID",
        "MLFLOW_TRACKING_URI",
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A real S3 server with an empty bucket, for the whole session; take `store` instead."""
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store(s3_server: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """An S3 server whose bucket is empty, and an environment that names it and its keys."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "right")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("ONLINEVPO_CACHE", str(tmp_path / "cache"))
    s3_server.empty()
    return s3_server


@pytest.fixture
def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
