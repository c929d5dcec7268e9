"""A worker process has one thread and does not outlive the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from components.runtime.compute.workers import begin

def about() -> tuple[int, int]:
    import torch
    return os.getpid(), torch.get_num_threads()

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), begin)
    print(*pool.submit(about).result(), flush=True)
    pool.submit(time.sleep, 600)
    time.sleep(600)
"""


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and that nobody has waited for yet does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_worker_has_one_thread_and_ends_with_its_parent(tmp_path: Path, repository: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "2"}
    parent = subprocess.Popen(
        [sys.executable, str(program)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker, threads = map(int, parent.stdout.readline().split())
    assert threads == 1 and alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)
