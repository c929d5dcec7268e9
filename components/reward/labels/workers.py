"""Processes that measure labels side by side.

Workers are spawned, never forked: a forked copy of a process whose torch has threads may hang. A worker
ends by itself when the process that started it is gone, however that went; its ffmpeg then reads the end of
its input and ends too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType

import numpy as np

from components.runtime.compute.signals import StopSignal
from components.runtime.compute.workers import begin
from components.runtime.errors import InputError

WATCH_S = 0.2
"""Seconds between looks at a request to stop."""

Task = tuple[np.ndarray, np.ndarray, np.ndarray]
"""uint8 originals (R, T, 3, H, W), int64 index (M,), uint8 distorted clips (M, T, 3, H, W)."""


def measure(task: Task) -> np.ndarray:
    """(M, 4) float64 losses of a task's pairs."""
    import torch

    from components.reward.labels.losses import losses

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return losses(*(torch.from_numpy(part) for part in task)).numpy()
    finally:
        torch.set_num_threads(threads)


class LabelWorkers:
    """`count` processes that measure tasks, or this one if `count` is 0. Use as a context, for many calls.

    Args:
        count: number of processes, at least 0.
    """

    def __init__(self, count: int = 0) -> None:
        if count < 0:
            raise ValueError(f"{count} label workers: at least 0")
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> LabelWorkers:
        if self.count:
            self._pool = ProcessPoolExecutor(self.count, mp_context=get_context("spawn"), initializer=begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def run(self, tasks: Iterable[Task], stop: StopSignal | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Each task's number and losses, as they are done.

        Raises:
            InputError: a task failed (its own message), or a worker died.
            Interrupted: a stop was asked for.
        """
        if self._pool is None:
            for number, task in enumerate(tasks):
                if stop is not None:
                    stop.raise_if_requested()
                yield number, measure(task)
            return
        numbers: dict[Future[np.ndarray], int] = {}
        waiting = iter(enumerate(tasks))
        try:
            while True:
                # Never more clips on their way than the workers are about to need.
                while len(numbers) < 2 * self.count and (following := next(waiting, None)) is not None:
                    numbers[self._pool.submit(measure, following[1])] = following[0]
                if not numbers:
                    return
                done, _ = wait(numbers, timeout=WATCH_S, return_when=FIRST_COMPLETED)
                if stop is not None:
                    stop.raise_if_requested()
                for future in done:
                    yield numbers.pop(future), future.result()
        except BrokenProcessPool as error:
            if stop is not None:
                stop.raise_if_requested()
            raise InputError(
                "a label worker died (killed, or out of memory); fewer workers need less memory"
            ) from error
        finally:
            for future in numbers:
                future.cancel()
