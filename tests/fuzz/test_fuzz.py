"""Parsers of outside data against hostile neighbours of valid files; the long run is slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def fuzz(repository: Path, cases: int, seed: int, limit: float) -> tuple[str, int]:
    """The table of a run in a process of its own, and its number of cases."""
    command = [sys.executable, "-m", "tests.fuzz", "--cases", str(cases), "--seed", str(seed)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    total = next(line for line in done.stdout.splitlines() if line.startswith("all "))
    return done.stdout, int(total.split()[1])


def test_a_few_cases_of_every_parser(repository: Path) -> None:
    table, cases = fuzz(repository, 1500, seed=1, limit=240)
    assert cases >= 1400
    assert "artifact manifest" in table


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_thousand_cases(repository: Path) -> None:
    table, cases = fuzz(repository, 22_000, seed=0, limit=3500)
    print(table)
    assert cases >= 20_000


def test_the_harness_finds_what_it_is_there_to_find(capfd: pytest.CaptureFixture[str]) -> None:
    from tests.fuzz.harness import Parser, run
    from tests.fuzz.mutation import bytes_turned

    def outcome(read: object) -> list[str]:
        parser = Parser("x", lambda folder: [b"valid"], read, bytes_turned)  # type: ignore[arg-type]
        return run(parser, 3, seed=0).findings

    def crash(data: bytes, folder: Path) -> None:
        import ctypes
        import faulthandler

        faulthandler.disable()  # the crash is meant; its traceback would only alarm
        ctypes.string_at(0)

    def hoard(data: bytes, folder: Path) -> bytes:
        return b"x" * 2**32

    assert outcome(lambda data, folder: None) == []
    assert "KeyError" in outcome(lambda data, folder: {}["a"])[0]
    assert "the process ended with" in outcome(crash)[0]
    assert "MemoryError" in outcome(hoard)[0]
    capfd.readouterr()
