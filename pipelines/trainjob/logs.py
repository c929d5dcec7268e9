"""The first node's log, copied to ours line by line while it is written: every line once, whatever breaks."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import datetime

import urllib3
from kubernetes.client.exceptions import ApiException

from components.runtime.errors import GateRefused, InputError, Interrupted
from pipelines.trainjob.kubernetes_api import Cluster, is_passing

Stamp = tuple[float, int]

# A new connection is asked to go back this many seconds beyond the break; lines kept to know them again.
_MARGIN_S, _RECENT = 30, 5000
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$")
#: How a step begins the line in which it says why it ended.
LAST_WORDS = tuple(f"{kind.label}: " for kind in (GateRefused, InputError, Interrupted))


class PodLog(threading.Thread):
    """Copies one pod's log until the pod has ended and all is read.

    Args:
        cluster: where the pod is.
        pod: its name.
        write: called with each line, without its end.
        pause_s: seconds between two connections.
    """

    def __init__(self, cluster: Cluster, pod: str, write: Callable[[str], None], pause_s: float) -> None:
        super().__init__(name=f"log of {pod}", daemon=True)
        self.pod = pod
        self.last_words = ""
        """The last line that a step says its end with ("refused: ..."), "" if there was none."""
        self._cluster, self._write, self._pause_s = cluster, write, pause_s
        self._ended = threading.Event()
        self._recent: deque[tuple[Stamp, str]] = deque(maxlen=_RECENT)
        self._heard = 0.0

    def end(self) -> None:
        """Tell that the pod has ended: what is read to the end now is all there will be."""
        self._ended.set()

    def run(self) -> None:
        """Read, and connect again, until the end."""
        while True:
            ended = self._ended.is_set()  # looked at first: a read that began afterwards is complete
            try:
                self._copy(final=ended)
                if ended:
                    return
            except ApiException as error:
                # 404: the pod is gone, and its log with it. 400: its container has not started yet.
                if error.status == 404 or (error.status == 400 and ended):
                    return
                if error.status != 400 and not is_passing(error):
                    self._complain(f"its log cannot be shown: {self._cluster.refusal(error)}")
                    return
            except (urllib3.exceptions.HTTPError, OSError):
                pass  # broken off: the next connection goes on where this one ended
            if ended:
                time.sleep(self._pause_s)
            else:
                self._ended.wait(self._pause_s)

    def _complain(self, text: str) -> None:
        print(f"trainjob: {self.pod}: {text}", file=sys.stderr, flush=True)

    def _copy(self, final: bool) -> None:
        again = bool(self._recent)
        since = int(time.monotonic() - self._heard) + _MARGIN_S if again else None
        response = self._cluster.log(self.pod, since)
        known, oldest = Counter(self._recent), self._recent[0][0] if again else (0.0, 0)
        try:
            for line in _lines(response, final):
                self._heard = time.monotonic()
                head, _, text = line.partition(" ")
                stamp = _stamp(head)
                if stamp is None:
                    continue  # not of the container: the kubelet's own complaint about the log
                if again and (stamp < oldest or known[stamp, text] > 0):
                    known[stamp, text] -= 1
                    continue
                self._recent.append((stamp, text))
                self._write(text)
                if text.startswith(LAST_WORDS):
                    self.last_words = text
        finally:
            response.close()
            response.release_conn()


class FirstNodeLog:
    """Follows the first node from pod to pod: a job that is suspended and resumed gets new ones."""

    def __init__(
        self, cluster: Cluster, write: Callable[[str], None] | None = None, pause_s: float = 2.0
    ) -> None:
        self._cluster, self._write, self._pause_s = cluster, write or _to_stdout, pause_s
        self._current: PodLog | None = None

    def follow(self, pod: str, ended: bool) -> None:
        """Read the log of `pod` from now on; `ended` if its container has."""
        if self._current is None or self._current.pod != pod:
            if self._current is not None:
                self._current.end()
            self._current = PodLog(self._cluster, pod, self._write, self._pause_s)
            self._current.start()
        if ended:
            self._current.end()

    def finish(self, patience_s: float = 10.0) -> str:
        """Wait until all that was written is read, then the step's last words."""
        if self._current is None:
            return ""
        self._current.end()
        self._current.join(patience_s)
        return self._current.last_words


def _lines(response: urllib3.BaseHTTPResponse, final: bool) -> Iterator[str]:
    """The whole lines of a stream; what stands after the last line's end only if there is no more to come."""
    buffer = b""
    for chunk in response.stream(amt=65_536):
        *whole, buffer = (buffer + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if final and buffer:
        yield buffer.decode(errors="replace")


def _stamp(text: str) -> Stamp | None:
    """An RFC 3339 time as (seconds, nanoseconds), None if it is none."""
    found = _STAMP.match(text)
    if found is None:
        return None
    whole = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    return whole.timestamp(), int((found[2] or "0").ljust(9, "0"))


def _to_stdout(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
