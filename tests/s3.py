"""A real S3 server (rclone) for tests: it checks credentials and knows multipart uploads."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

RCLONE = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@dataclass
class Store:
    endpoint: str
    folder: Path

    def files(self, under: str = "runs") -> list[str]:
        """What the store holds of bucket/<under>, seen from its disk."""
        root = self.folder / "bucket" / under
        return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())

    def put(self, key: str, text: str) -> None:
        """Write an object of the bucket, by the server: it remembers what lies on its disk for a while."""
        self._client().put_object(Bucket="bucket", Key=key, Body=text.encode())

    def delete(self, key: str) -> None:
        """Remove an object of the bucket, by the server: of a file that vanishes it goes on to tell the size,
        and a request for it then ends in the middle."""
        self._client().delete_object(Bucket="bucket", Key=key)

    def empty(self) -> None:
        """Remove every object of the bucket."""
        for name in self.files(""):
            self.delete(name)
        shutil.rmtree(self.folder / "bucket", ignore_errors=True)
        (self.folder / "bucket").mkdir()

    def _client(self) -> Any:
        keys = {"aws_access_key_id": "right", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.endpoint, **keys)


@contextmanager
def serving(folder: Path, *more: str) -> Iterator[Store]:
    """A server with the bucket `bucket`, key id `right` and secret `secret`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert RCLONE is not None
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", "right,secret", "--config", str(folder / "none")]
    process = subprocess.Popen(
        [RCLONE, "serve", "s3", *options, *more, str(folder / "data")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (folder / "data" / "bucket").mkdir(parents=True)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield Store(f"http://127.0.0.1:{port}", folder / "data")
    finally:
        process.terminate()
        process.wait(timeout=10)
