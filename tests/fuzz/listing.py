"""A store that says what it likes: every listing is the given bytes, every object the same two."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from components.runtime.io import storage

LISTING = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix>a/</Prefix>
<KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>
<Contents><Key>a/one.txt</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>"x"</ETag><Size>2</Size></Contents>
<Contents><Key>a/deep/two.txt</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>"y"</ETag><Size>2</Size></Contents>
</ListBucketResult>
"""


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    listing = LISTING

    def do_GET(self) -> None:
        body = self.listing if "list-type" in self.path else b"ok"
        self._answer(body)

    def do_HEAD(self) -> None:
        self._answer(b"ok", head=True)

    def _answer(self, body: bytes, head: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


_server: ThreadingHTTPServer | None = None


def download(listing: bytes, folder: Path) -> object:
    """Download what a listing names into a folder; nothing may appear outside it.

    One server for the whole process: a case's time is spent on the parser.
    """
    global _server
    if _server is None:
        _server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
        threading.Thread(target=_server.serve_forever, daemon=True).start()
        os.environ.update(
            AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{_server.server_port}",
            AWS_ACCESS_KEY_ID="right", AWS_SECRET_ACCESS_KEY="secret", AWS_MAX_ATTEMPTS="1",
        )  # fmt: skip
    _Answers.listing = listing
    inside = folder / "deep" / "inside"
    inside.mkdir(parents=True)
    try:
        return storage.download_dir("s3://bucket/a", inside)
    finally:
        outside = [path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(inside)]
        assert not outside, f"written outside the folder: {outside}"
