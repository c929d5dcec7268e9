"""A real MLflow server behind a proxy that does harm: the step goes on, and its numbers arrive."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from components.runtime.artifacts.publish import publish
from components.runtime.params import StepParams
from components.runtime.tracking import step_run as tracking
from components.runtime.tracking.step_run import track
from tests.faults.proxy import Fault, Proxy, proxied

FOREVER = 10**6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's own server with a database of its own."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/m.db",
        "--artifacts-destination", str(folder / "files"), "--workers", "1", "--host", "127.0.0.1",
        "--port", str(port),
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                if requests.get(f"{url}/health", timeout=1).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxied(server) as running:
        monkeypatch.setenv("ONLINEVPO_TRACKING", "on")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", running.url)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setattr(tracking, "_FLUSH_S", 0.05)
        monkeypatch.setattr(tracking, "_PAUSE_S", 0.1)
        yield running


def train(proxy: Proxy, out: Path, fault: Fault, begin: int, end: int, steps: int = 60) -> str:
    """A step that logs a number `steps` times, the fault lasting from one to another; its run's id."""
    with track("reward", StepParams()) as run, publish(out, step="reward", params=StepParams()) as workspace:
        for step in range(steps):
            if step == begin:
                proxy.first(FOREVER, fault)
            if step == end:
                proxy.first(0, Fault())
            run.metrics({"loss": 1.0 / (step + 1)}, at=step)
            time.sleep(0.03)
        workspace.write_metrics({"srcc": 0.5})
    assert (out / "manifest.json").is_file()
    proxy.first(0, Fault())
    return str(run.run_id)


def arrived(proxy: Proxy, run_id: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    return [(one.step, one.value) for one in MlflowClient(proxy.url).get_metric_history(run_id, "curve/loss")]


@pytest.mark.parametrize(
    "fault", [Fault(refuse=True), Fault(status=500), Fault(status=503), Fault(cut=0)], ids=str
)
def test_numbers_of_an_outage_arrive_afterwards(
    fault: Fault, proxy: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    run_id = train(proxy, tmp_path / "out", fault, begin=10, end=35)
    assert time.monotonic() - began < 60
    assert arrived(proxy, run_id) == [(step, 1.0 / (step + 1)) for step in range(60)]
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1 and "kept and sent later" in warnings[0]


def test_an_outage_to_the_end_is_told_with_its_number(
    proxy: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    run_id = train(proxy, tmp_path / "out", Fault(refuse=True), begin=30, end=FOREVER)
    assert time.monotonic() - began < 60
    there = len(arrived(proxy, run_id))
    assert there <= 31
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        f"{60 - there} values were not sent" in last and "its files and final figures are not there" in last
    )


@pytest.mark.slow
def test_a_slow_server_delays_and_loses_nothing(proxy: Proxy, tmp_path: Path) -> None:
    began = time.monotonic()
    run_id = train(proxy, tmp_path / "out", Fault(wait=0.4), begin=10, end=FOREVER, steps=30)
    assert time.monotonic() - began < 90
    assert len(arrived(proxy, run_id)) == 30


def test_down_from_the_start_costs_one_warning(
    proxy: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.first(FOREVER, Fault(refuse=True))
    began = time.monotonic()
    with (
        track("reward", StepParams()) as run,
        publish(tmp_path / "out", step="reward", params=StepParams()) as workspace,
    ):
        run.metrics({"loss": 1.0}, at=0)
        workspace.write_metrics({"srcc": 0.5})
    assert time.monotonic() - began < 30
    assert run.run_id is None
    assert capsys.readouterr().err.count("goes untracked") == 1


def test_a_password_in_the_uri_is_shown_nowhere(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url.replace("http://", "http://someone:hunter2secret@"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anothersecret")
    train(proxy, tmp_path / "out", Fault(status=500), begin=10, end=20, steps=30)
    train(proxy, tmp_path / "out", Fault(refuse=True), begin=10, end=FOREVER, steps=30)
    said = capfd.readouterr()
    written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    for text in (said.out, said.err, written):
        assert "hunter2secret" not in text and "anothersecret" not in text
