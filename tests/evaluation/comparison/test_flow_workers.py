"""The processes that estimate flow: they end with the process that started them, and hear a stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from components.evaluation.dimensions import classical_flow as classical
from components.evaluation.dimensions.base import VideoBatch
from components.runtime.errors import InputError, Interrupted
from tests.runtime.compute.test_process_pool import alive

PARENT = """
import time
import torch
from components.evaluation.dimensions import classical_flow as classical
from components.evaluation.dimensions.base import VideoBatch

classical.available_cpus = lambda: 2
if __name__ == "__main__":
    frames = torch.randint(0, 255, (4, 2, 3, 32, 32), dtype=torch.uint8)
    with classical.workers(classical.WORTH_WORKERS) as pool:
        clips = VideoBatch(frames, 8.0, ("",) * 4, pool)
        clips.compute("flow_lengths")
        print(*("flow_lengths" in vars(video) for video in clips.videos), flush=True)
        time.sleep(600)
"""


def children(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(number) for number in found.split()]


def test_flow_workers_end_when_their_parent_is_killed(tmp_path: Path, repository: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    parent = subprocess.Popen(
        [sys.executable, str(program)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline().split() == ["True"] * 4
    workers = children(parent.pid)
    assert len(workers) >= 2 and all(map(alive, workers))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [worker for worker in workers if alive(worker)]
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def clips(pool: classical.ProcessPool | None) -> VideoBatch:
    frames = torch.randint(
        0, 255, (4, 3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return VideoBatch(frames, 8.0, ("",) * 4, pool)


def test_workers_find_what_this_process_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "available_cpus", lambda: 2)
    alone = clips(None)
    with classical.workers(classical.WORTH_WORKERS) as pool:
        assert pool is not None and pool.count == 2
        together = clips(pool)
        together.compute("flow_lengths")
        pool.stop.requested = True
        with pytest.raises(Interrupted):
            clips(pool).compute("flow_lengths")
    torch.set_num_threads(1)
    for one, other in zip(alone.videos, together.videos, strict=True):
        assert vars(other)["flow_lengths"] == pytest.approx(one.flow_lengths, rel=1e-6)


def test_a_dead_worker_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "available_cpus", lambda: 2)
    with classical.workers(classical.WORTH_WORKERS) as pool:
        assert pool is not None
        made = clips(pool)
        made.compute("flow_lengths")
        for worker in children(os.getpid()):
            if b"spawn_main" in Path(f"/proc/{worker}/cmdline").read_bytes():
                os.kill(worker, signal.SIGKILL)
        with pytest.raises(InputError, match="a worker process died"):
            clips(pool).compute("flow_lengths")
