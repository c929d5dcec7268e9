"""Work side by side: in order, stopped when asked, and told when a worker dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError, Interrupted


def slow_first(number: int) -> tuple[int, int]:
    """The number squared, and whose work it was; the first task takes longest."""
    time.sleep(0.3 if number == 0 else 0.0)
    return number * number, os.getpid()


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise InputError(f"task {number} is no good")


def test_results_come_in_the_order_of_the_tasks() -> None:
    with ProcessPool(2, StopSignal()) as pool:
        found = list(pool.map(slow_first, range(12)))
        again = list(pool.map(slow_first, [5]))
    assert [value for value, _ in found] == [n * n for n in range(12)] and again[0][0] == 25
    assert os.getpid() not in {who for _, who in found}


def test_without_workers_the_work_is_done_here() -> None:
    with ProcessPool(0, StopSignal()) as pool:
        assert list(pool.map(slow_first, [2])) == [(4, os.getpid())]


@pytest.mark.parametrize("count", [0, 1])
def test_a_stop_is_heard_between_tasks(count: int) -> None:
    stop = StopSignal()
    with pytest.raises(Interrupted), ProcessPool(count, stop) as pool:
        for value, _ in pool.map(slow_first, range(100)):
            stop.requested = value >= 4
            assert value <= 16


def test_a_dead_worker_is_one_line() -> None:
    with pytest.raises(InputError, match="a worker process died"), ProcessPool(1, StopSignal()) as pool:
        list(pool.map(die, range(4)))


def test_an_error_of_a_task_comes_through() -> None:
    with pytest.raises(InputError, match="task 0 is no good"), ProcessPool(1, StopSignal()) as pool:
        list(pool.map(fail, range(4)))
    with pytest.raises(ValueError, match="-1 workers"):
        ProcessPool(-1, StopSignal())


PARENT = """
import os, time
from components.runtime.compute.process_pool import ProcessPool

def about() -> tuple[int, int]:
    import torch
    return os.getpid(), torch.get_num_threads()

if __name__ == "__main__":
    with ProcessPool(1) as pool:
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
