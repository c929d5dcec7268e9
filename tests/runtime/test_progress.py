from __future__ import annotations

import io

import pytest

from components.runtime import progress
from components.runtime.progress import Progress, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_line_now_and_then_with_rate_eta_and_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(), io.StringIO()
    monkeypatch.setattr(progress, "time", clock)
    with Progress(100, "reward: training", every_s=10, start=20, stream=stream) as bar:
        for _ in range(80):
            clock.now += 0.5
            bar.update(loss=0.25)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "reward: training: 40/100  2/s  ETA 30s  loss=0.25"
    assert lines[-1] == "reward: training: 100/100  2/s  took 40s  loss=0.25"
    assert len(lines) == 5


def test_other_processes_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    stream = io.StringIO()
    with Progress(2, "x", every_s=0, stream=stream) as bar:
        bar.update(2)
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress(2, "training", stream=stream) as bar:
        bar.update(2, loss=0.5)
    assert "training" in stream.getvalue() and "2/2" in stream.getvalue() and "loss=0.5" in stream.getvalue()


def test_duration() -> None:
    assert [duration(s) for s in (0.4, 59.6, 185, 7620)] == ["0s", "1m00s", "3m05s", "2h07m"]
