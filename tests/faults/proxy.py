"""A proxy in front of a real server that does harm on request."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Fault:
    """What becomes of one request.

    Attributes:
        status: answered instead of the server, 0 for the server's own answer.
        cut: the connection is closed after this many bytes of the answer's body.
        flip: this byte of the answer's body is another.
        wait: seconds before the answer.
        length: what the answer to HEAD says the object's size is.
        refuse: the connection is closed without an answer.
    """

    status: int = 0
    cut: int | None = None
    flip: int | None = None
    wait: float = 0.0
    length: int | None = None
    refuse: bool = False


@dataclass
class Proxy:
    """A running proxy. `plan(method, path)` is asked about every request; None lets it pass."""

    upstream: str
    plan: Callable[[str, str], Fault | None] = lambda method, path: None
    url: str = ""
    seen: list[str] = field(default_factory=list)

    def first(self, count: int, fault: Fault, method: str = "", part: str = "") -> None:
        """Do that to the first `count` requests of a method whose path holds `part`."""
        left = [count]

        def plan(asked: str, path: str) -> Fault | None:
            if left[0] > 0 and asked.startswith(method) and part in path:
                left[0] -= 1
                return fault
            return None

        self.plan = plan


@contextmanager
def proxied(upstream: str) -> Iterator[Proxy]:
    """A proxy in front of `upstream`, http://host:port."""
    proxy = Proxy(upstream)
    place = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            proxy.seen.append(f"{self.command} {self.path}")
            fault = proxy.plan(self.command, self.path) or Fault()
            if "100-continue" in self.headers.get("Expect", ""):
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(fault.wait)
            self.close_connection = True
            if fault.refuse:
                return
            if fault.status:
                self.send_response(fault.status)
                self.send_header("Content-Length", "0")
                self.send_header("Connection", "close")
                self.end_headers()
                return
            there = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            there.request(self.command, self.path, body, headers)
            answer = there.getresponse()
            content = bytearray(answer.read())
            if fault.flip is not None and content:
                content[fault.flip % len(content)] ^= 1
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in (
                    "transfer-encoding",
                    "connection",
                    "content-length",
                    "date",
                    "server",
                ):
                    self.send_header(name, value)
            size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            if self.command == "HEAD" and fault.length is not None:
                size = str(fault.length)
            self.send_header("Content-Length", size or "0")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content[: fault.cut] if fault.cut is not None else content)
            there.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _serve

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
