"""A disk, a clock and a second run that do not behave."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from datetime import datetime as real_datetime
from pathlib import Path

import pytest
import torch

from components.runtime.artifacts import publish as publishing
from components.runtime.artifacts import workspace
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.checkpoints import Checkpointer
from components.runtime.artifacts.publish import publish
from components.runtime.errors import InputError
from components.runtime.params import StepParams


def make(out: Path, size: int = 10) -> None:
    with publish(out, step="corpus", params=StepParams()) as place:
        (place.dir / "clips.bin").write_bytes(b"x" * size)
        place.write_metrics({"figure": 1.0})


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    make(tmp_path / "before")
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            make(tmp_path / "out", 10**6)
        except InputError as error:
            os._exit(2 if "File too large" in str(error) else 3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before"]
    make(tmp_path / "out", 10**6)
    assert open_artifact(tmp_path / "out").manifest.files["clips.bin"].bytes == 10**6


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        make(Path("/proc/onlinevpo/out"))


def test_a_clock_set_back_between_and_during_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Back(real_datetime):
        @classmethod
        def now(cls, tz: object = None) -> real_datetime:  # type: ignore[override]
            return real_datetime(1999, 1, 1, tzinfo=tz)  # type: ignore[arg-type]

    make(tmp_path / "first")
    monkeypatch.setattr(publishing, "datetime", Back)
    moments = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(moments)))
    keeper = Checkpointer(tmp_path / "checkpoints")
    for step in (1, 2):
        folder = keeper.save(step, {"w": torch.full((2,), float(step))})
        os.utime(folder, (10**9 - step * 10**6,) * 2)
    newest = keeper.latest()
    assert newest is not None and newest.step == 2
    make(tmp_path / "second")
    first, second = (open_artifact(tmp_path / name).manifest for name in ("first", "second"))
    assert second.created < first.created and second.wall_seconds >= 0
    assert second.digest == first.digest


def test_two_runs_at_once_on_one_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_LOCK_PATIENCE_S", 1.0)
    inside, go = threading.Event(), threading.Event()

    def slow() -> None:
        with publish(tmp_path / "out", step="corpus", params=StepParams()) as place:
            (place.dir / "clips.bin").write_bytes(b"first")
            inside.set()
            go.wait(30)
            place.write_metrics({"figure": 1.0})

    first = threading.Thread(target=slow)
    first.start()
    assert inside.wait(30)
    began = time.monotonic()
    with pytest.raises(InputError, match="another process is at work here"):
        make(tmp_path / "out")
    assert time.monotonic() - began < 10
    go.set()
    first.join(30)
    assert open_artifact(tmp_path / "out").file("clips.bin").read_bytes() == b"first"
