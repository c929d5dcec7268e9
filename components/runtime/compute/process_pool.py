"""A pool of processes that work side by side and never outlive the process that started them.

Workers are spawned, never forked: a forked copy of a process whose torch has threads may hang.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from types import TracebackType
from typing import Any, TypeVar

from components.runtime.compute.devices import one_thread
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError

#: Seconds between looks at a request to stop.
WATCH_S = 0.2

Task = TypeVar("Task")
Result = TypeVar("Result")


class ProcessPool:
    """`count` processes, or this one if `count` is 0. Use as a context, for many calls.

    A worker has one thread, leaves signals to its parent, and ends when the parent is gone, even by kill -9.

    Args:
        count: number of processes, at least 0.
        stop: asked between tasks whether to stop; None for never.
    """

    def __init__(self, count: int, stop: StopSignal | None = None) -> None:
        if count < 0:
            raise ValueError(f"{count} workers: at least 0")
        self.count, self.stop = count, stop or StopSignal()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> ProcessPool:
        if self.count:
            self._pool = ProcessPoolExecutor(self.count, get_context("spawn"), _begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def submit(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Start one call in a worker; it can be cancelled until a worker takes it."""
        assert self._pool is not None, "submit needs workers"
        return self._pool.submit(work, *arguments)

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """What `work` makes of every task, in their order. Function, tasks and results must be picklable.

        Raises:
            InputError: a worker died.
            Interrupted: a stop was asked for.
        """
        if self._pool is None:
            for task in tasks:
                self.stop.raise_if_requested()
                with one_thread():  # as in a worker
                    result = work(task)
                yield result
            return
        ordered: deque[Future[Result]] = deque()
        waiting = iter(tasks)
        try:
            while True:
                # A few more than there are workers: enough to keep them busy, few enough to hold in memory.
                while len(ordered) < 2 * self.count + 1:
                    try:
                        ordered.append(self._pool.submit(work, next(waiting)))
                    except StopIteration:
                        break
                if not ordered:
                    return
                wait([ordered[0]], timeout=WATCH_S)
                self.stop.raise_if_requested()
                if ordered[0].done():
                    yield ordered.popleft().result()
        except BrokenProcessPool as error:
            self.stop.raise_if_requested()
            raise InputError(
                "a worker process died (killed, or out of memory); fewer workers need less memory"
            ) from error
        finally:
            for future in ordered:
                future.cancel()


def _begin() -> None:
    """Initialize a worker: one thread, signals left to the parent, an end when the parent is gone."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:  # too late for the environment
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
