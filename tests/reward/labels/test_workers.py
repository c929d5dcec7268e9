"""Labels in worker processes: the same bits with any number of them, one error, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from components.reward.labels.label import LabelTask, measure, measured
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.errors import InputError
from tests.reward.labels.conftest import at_levels


def task(side: int = 48) -> LabelTask:
    clips = np.zeros((1, 3, 3, side, side), dtype=np.uint8)
    return clips, np.zeros(1, dtype=np.int64), clips + 9


@pytest.fixture(scope="module")
def two() -> Iterator[ProcessPool]:
    with ProcessPool(2) as pool:
        yield pool


def test_same_labels_with_no_one_and_two_workers(
    real: Tensor, two: ProcessPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from components.reward.labels import label as labelling

    clips, ladder = (
        torch.cat((real, real)),
        torch.cat([at_levels(real, name) for name in ("blur", "shuffle")]),
    )
    here = measured(clips, ladder)
    monkeypatch.setattr(labelling, "TASK_CLIPS", 25)
    for pool in (None, two):
        assert torch.equal(here, measured(clips, ladder, pool=pool, cache=tmp_path / str(pool is None)))
    with ProcessPool(1) as one:
        assert torch.equal(here[3:4], measured(clips[3:4], ladder[3:4], pool=one))


def test_an_error_in_a_worker_is_one_error_here(two: ProcessPool) -> None:
    with pytest.raises(InputError, match="at least 11 x 11 px"):
        list(two.map(measure, [task(), task(8), task()]))
    assert len(list(two.map(measure, [task(), task()]))) == 2, "the workers go on"


SCRIPT = """
import torch
from components.reward.labels.label import measured
from components.runtime.compute.process_pool import ProcessPool

if __name__ == "__main__":
    clips = torch.randint(0, 256, (64, 60, 3, 64, 64), dtype=torch.uint8)
    print("ready", flush=True)
    with ProcessPool(2) as pool:
        measured(clips, torch.stack((clips, 255 - clips), dim=1), pool=pool)
"""


def descendants(session: int) -> dict[int, str]:
    """Living processes of a session, by id: their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found[int(folder.name)] = line
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_killed_parent_leaves_no_process_behind(number: int, tmp_path: Path) -> None:
    script = tmp_path / "labels.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": root},
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    try:
        limit = time.monotonic() + 90
        while not any("ffmpeg" in line for line in descendants(process.pid).values()):
            assert time.monotonic() < limit and process.poll() is None, "no ffmpeg was ever started"
            time.sleep(0.05)
        os.kill(process.pid, number)
        process.wait(30)
        limit = time.monotonic() + 30
        while left := descendants(process.pid):
            assert time.monotonic() < limit, f"still there: {left}"
            time.sleep(0.1)
    finally:
        for left_over in descendants(process.pid):
            os.kill(left_over, signal.SIGKILL)
        process.kill()
        process.wait()
