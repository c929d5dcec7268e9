"""Being stopped politely: a signal becomes a flag that a loop reads after it has saved its work."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from components.runtime.errors import Interrupted

if TYPE_CHECKING:
    from components.runtime.compute.distributed import Ranks

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """While entered, SIGTERM and SIGINT only set `.requested`; a second SIGINT stops at once.

        with StopSignal() as stop:
            for step in range(...):
                ...
                if stop.should_stop(ranks) or step % every == 0:
                    checkpointer.save(...)
                stop.raise_if_requested(ranks)

    Outside the main thread no handler can be installed; `.requested` then stays False unless set by hand.
    """

    def __init__(self) -> None:
        self.requested = False
        self._agreed = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        outer = getattr(self._previous.get(number), "__self__", None)
        if isinstance(outer, StopSignal):
            outer.requested = True

    def should_stop(self, ranks: Ranks | None = None) -> bool:
        """Whether a stop was requested here or, given `ranks`, in any process (then all must make this call).

        Processes receive a signal at different moments; stopping one of them alone would leave the others
        waiting.
        """
        if ranks is None or ranks.size == 1:
            return self.requested
        if not self._agreed:
            self._agreed = any(ranks.all_gather_object(self.requested))
        return self._agreed

    def raise_if_requested(self, ranks: Ranks | None = None) -> None:
        """Raise `Interrupted` if a stop was requested; call it just after a checkpoint was saved."""
        if self.should_stop(ranks):
            raise Interrupted
