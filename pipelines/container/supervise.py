"""Runs one command the way a container's first process must: signals passed on, nobody left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TAIL_BYTES = 16_384
_STDERR = 2
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (128 + N for a death by signal N), the end of its stderr."""

    code: int
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line it wrote to stderr that is not empty, "" if there is none."""
        return next((line.strip() for line in reversed(self.stderr.splitlines()) if line.strip()), "")


def run_child(command: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run `command` to its end; its output goes straight through.

    SIGTERM, SIGINT and SIGHUP that reach this process go to the command once each. When it has ended,
    processes that it left behind are killed, for they would hold the locks that a retry needs. Orphans are
    reaped all along. Must be called from the main thread.

    Raises:
        OSError: if it cannot be started.
    """
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = _children()
    tail = bytearray()
    with _forwarding() as receiver:
        # A session of its own: whoever signals our whole process group would otherwise reach the command
        # twice.
        child = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        assert child.stderr is not None
        reader = threading.Thread(target=_pass_on, args=(child.stderr.fileno(), tail), daemon=True)
        reader.start()
        receiver.start(child.pid)
        while True:
            pid, status = os.wait()
            if pid == child.pid:
                break
        receiver.stop()
        code = os.waitstatus_to_exitcode(status)
        child.returncode = code  # reaped here, so Popen must not wait for it
        _stop_left_behind(child.pid, before)
        reader.join(timeout=10)
        child.stderr.close()
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    return Ended(128 - code if code < 0 else code, tail.decode(errors="replace"))


class _Receiver:
    """Hands signals to a process, also those that came before it was started."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._early: list[int] = []

    def start(self, pid: int) -> None:
        self._pid = pid
        for number in self._early:
            self.take(number, None)

    def stop(self) -> None:
        self._pid = None

    def take(self, number: int, frame: FrameType | None) -> None:
        if self._pid is None:
            self._early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)


@contextmanager
def _forwarding() -> Iterator[_Receiver]:
    receiver = _Receiver()
    previous = {number: signal.signal(number, receiver.take) for number in _FORWARDED}
    try:
        yield receiver
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """In the child: a SIGTERM when the process that started it dies, even of kill -9."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _pass_on(source: int, tail: bytearray) -> None:
    """Copy what comes from file descriptor `source` to our stderr at once, and keep its end."""
    while chunk := os.read(source, 65_536):
        tail += chunk
        del tail[:-_TAIL_BYTES]
        while chunk:
            try:
                chunk = chunk[os.write(_STDERR, chunk) :]
            except OSError:
                break  # nobody listens any more; the command must not block because of it


def _children() -> set[int]:
    """Process ids of our children; empty where the kernel does not tell."""
    found: set[int] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in listing.read_text().split()}
    return found


def _stop_left_behind(group: int, before: set[int]) -> None:
    """Kill what is left of process group `group`, and every process that became our child since `before`."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    for _ in range(16):  # each round may orphan another generation
        left = _children() - before
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
