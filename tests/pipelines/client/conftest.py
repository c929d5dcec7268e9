"""A stand-in for a Kubeflow Pipelines server, and somebody who calls it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.client import kfp_api as server_module
from pipelines.client import token as bearer_module
from tests.pipelines.client.kfp_server import KfpServer, serving
from tests.pipelines.client.submitting import Caller, compiled_text

TOKEN = "eyJhbGciOi.c2VjcmV0.tokentokentoken"


@pytest.fixture(autouse=True)
def _outside_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KF_PIPELINES_SA_TOKEN_PATH", "KF_PIPELINES_UI_ENDPOINT", "KFP_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(bearer_module, "POD_TOKEN", tmp_path / "no-token")
    monkeypatch.setattr(server_module, "POD_NAMESPACE", tmp_path / "no-namespace")


@pytest.fixture
def kfp_server() -> Iterator[KfpServer]:
    with serving() as server:
        yield server


@pytest.fixture
def caller(kfp_server: KfpServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Caller:
    (tmp_path / "pipeline.yaml").write_text(compiled_text())
    return Caller(kfp_server, capsys, tmp_path / "pipeline.yaml")


@pytest.fixture
def token_file(kfp_server: KfpServer, tmp_path: Path) -> Path:
    """A file with the token that the server wants."""
    kfp_server.token = TOKEN
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return tmp_path / "token"
