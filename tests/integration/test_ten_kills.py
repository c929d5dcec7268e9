"""An alignment killed ten times, whenever it happens to be, ends in the same bits as one left alone."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest

from tests.alignment.tiny import save_tiny
from tests.integration.killed_alignment import RESULTS, align

KILLS = 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_leave_no_trace(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Processes are forked from one that has imported everything, so that an attempt begins at once.
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.integration.killed_alignment"])
    model = save_tiny(tmp_path / "model")

    def start(name: str) -> multiprocessing.process.BaseProcess:
        begun = processes.Event()
        process = processes.Process(target=align, args=(model, tmp_path / name, begun))
        process.start()
        while not begun.wait(timeout=1):
            assert process.is_alive(), f"{name}: it ended with {process.exitcode} before it began"
        return process

    whole = start("whole")
    began = time.monotonic()
    whole.join()
    seconds = time.monotonic() - began
    assert whole.exitcode == 0
    expected = {name: (tmp_path / "whole" / name).read_bytes() for name in RESULTS}

    # On a machine whose speed changes a run may get through before the tenth kill; then one more is begun.
    seed = time.time_ns()
    moments, kills, runs = random.Random(seed), 0, 0
    while True:
        process = start(f"cut{runs}")
        process.join(timeout=moments.uniform(0.0, seconds / 8) if kills < KILLS else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            kills += 1
            continue
        assert process.exitcode == 0, f"seed {seed}"
        for name, value in expected.items():
            assert (tmp_path / f"cut{runs}" / name).read_bytes() == value, f"{name}, seed {seed}"
        if kills == KILLS:
            break
        runs += 1
