"""The very command and environment of the TrainJob as two nodes that share nothing but S3 and a network."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.runtime.artifacts.artifact import open_artifact
from components.runtime.io import storage
from pipelines.trainjob.manifest import Places
from tests.pipelines.trainjob.conftest import Store
from tests.pipelines.trainjob.two_nodes import (
    NODES,
    assert_same_weights,
    make_inputs,
    node_environments,
    run_one_process,
    train_job,
    upload_inputs,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs of a tiny alignment."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONLINEVPO_TRACKING", "off")
        make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def one(made: Path, repository: Path) -> Path:
    """What one process makes of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONLINEVPO_TRACKING", "off")
        return run_one_process(made, repository)


@pytest.fixture
def places(made: Path, store: Store) -> Places:
    """The same artifacts and params in S3."""
    return upload_inputs(made, store)


def start(job: dict[str, Any], folder: Path, repository: Path) -> list[subprocess.Popen[bytes]]:
    """Start the job's command once per node, each with an empty disk of its own."""
    nodes = []
    for rank, environment in enumerate(node_environments(job)):
        home = folder / f"node{rank}"
        shutil.rmtree(home, ignore_errors=True)
        for name in ("work", "tmp"):
            (home / name).mkdir(parents=True)
        variables = {
            **os.environ, **environment, "PYTHONPATH": str(repository), "HOME": str(home),
            "ONLINEVPO_CACHE": str(home / "cache"), "TMPDIR": str(home / "tmp"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        with open(folder / f"node{rank}.log", "ab") as log:
            command = job["spec"]["trainer"]["command"]
            nodes.append(subprocess.Popen(command, cwd=home / "work", env=variables, stdout=log, stderr=log))
    return nodes


def lose(node: subprocess.Popen[bytes]) -> None:
    """End a node with all that runs on it, at once. Its workers have process groups of their own."""
    listings = Path(f"/proc/{node.pid}/task").glob("*/children")
    workers = [int(pid) for listing in listings for pid in listing.read_text().split()]
    for pid in (node.pid, *workers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ended(nodes: list[subprocess.Popen[bytes]]) -> list[int]:
    """The exit codes of all nodes."""
    try:
        return [node.wait(timeout=600) for node in nodes]
    finally:
        for node in nodes:
            if node.poll() is None:
                lose(node)
                node.wait()


def logs(folder: Path) -> str:
    return "\n".join((folder / f"node{rank}.log").read_text()[-3000:] for rank in range(NODES))


def test_same_weights_as_one_process(
    one: Path, places: Places, store: Store, tmp_path: Path, repository: Path
) -> None:
    nodes = start(train_job(places, store.environment()), tmp_path, repository)
    assert ended(nodes) == [0, 0], logs(tmp_path)
    assert_same_weights(open_artifact(places.out, step="alignment").path, one)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_resumes_on_new_nodes(
    one: Path,
    places: Places,
    store: Store,
    tmp_path: Path,
    repository: Path,
    signal_number: signal.Signals,
) -> None:
    """Nodes are told to stop, or one is lost: new ones with empty disks go on from the checkpoint."""
    checkpoints = f"s3://{store.bucket}/checkpoints"
    job = train_job(places, {**store.environment(), "ONLINEVPO_CHECKPOINTS": checkpoints})
    nodes = start(job, tmp_path, repository)
    deadline = time.monotonic() + 300
    while not any(
        "step-" in file.name and file.name.endswith("state.json") for file in storage.list_files(checkpoints)
    ):
        assert all(node.poll() is None for node in nodes) and time.monotonic() < deadline, logs(tmp_path)
        time.sleep(0.02)
    if signal_number == signal.SIGTERM:
        for node in nodes:
            node.terminate()
        assert ended(nodes) == [75, 75], logs(tmp_path)
    else:
        lose(nodes[1])
        assert ended(nodes)[0] == 1, logs(tmp_path)
    assert storage.read_bytes(f"{places.out}/manifest.json") is None

    nodes = start(job, tmp_path, repository)
    assert ended(nodes) == [0, 0], logs(tmp_path)
    assert "checkpoints of an earlier attempt found" in (tmp_path / "node0.log").read_text()
    assert_same_weights(open_artifact(places.out, step="alignment").path, one)
