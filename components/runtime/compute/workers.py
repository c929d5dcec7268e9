"""What a worker process does first, whoever starts it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing import connection, parent_process


def begin() -> None:
    """One thread, signals left to the parent, an end when the parent is gone.

    The initializer of a pool of spawned processes.
    """
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
