"""Telling a person how far long work has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from components.runtime.compute.distributed import is_main_process


def duration(seconds: float) -> str:
    """Seconds as "42s", "3m05s" or "2h07m"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


class Progress:
    """Progress of `total` units of `what`, written to stderr by the main process only.

    Args:
        total: number of units of work in all.
        what: what is being done, e.g. "reward: training".
        every_s: seconds between lines where stderr is not a terminal.
        start: units already done before this process began (a resumed run).
    """

    def __init__(
        self, total: int, what: str, every_s: float = 10.0, *, start: int = 0, stream: TextIO | None = None
    ) -> None:
        self.total, self.what, self.every_s = total, what, every_s
        self.done = self._start = start
        self._stream = stream or sys.stderr
        self._figures: dict[str, float] = {}
        self._bar: tqdm | None = None

    def __enter__(self) -> Progress:
        self._began = self._spoke = time.monotonic()
        self._silent = not is_main_process()
        if not self._silent and self._stream.isatty():
            self._bar = tqdm(
                total=self.total, desc=self.what, initial=self._start, file=self._stream, dynamic_ncols=True
            )
        return self

    def update(self, n: int = 1, **figures: float) -> None:
        """Note `n` more units done, and the latest value of the figures that matter."""
        self.done += n
        self._figures.update(figures)
        if self._silent:
            return
        if self._bar is not None:
            if self._figures:
                self._bar.set_postfix({k: f"{v:.4g}" for k, v in self._figures.items()}, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._spoke >= self.every_s:
            self._line()

    def _line(self) -> None:
        self._spoke = time.monotonic()
        elapsed = max(self._spoke - self._began, 1e-9)
        rate = (self.done - self._start) / elapsed
        pace = f"{rate:.3g}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.3g} s each"
        left = (
            f"ETA {duration((self.total - self.done) / rate)}" if rate > 0 and self.done < self.total else ""
        )
        if self.done >= self.total:
            left = f"took {duration(elapsed)}"
        figures = " ".join(f"{k}={v:.4g}" for k, v in self._figures.items())
        parts = [f"{self.what}: {self.done}/{self.total}", pace, left, figures]
        print("  ".join(p for p in parts if p), file=self._stream, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif not self._silent:
            self._line()
