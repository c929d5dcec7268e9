"""Steps killed at random moments, and the same command again; a dozen kills here, two hundred are slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def kills(repository: Path, limit: float, *options: str) -> tuple[str, int]:
    """The table of a run in a process of its own, and its number of kills."""
    command = [sys.executable, "-m", "tests.faults.kills", *options]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    total = next(line for line in done.stdout.splitlines() if line.startswith("all "))
    return done.stdout, int(total.split()[4])


@pytest.mark.slow
def test_a_dozen_kills(repository: Path) -> None:
    _, count = kills(repository, 280, "--kills", "12", "--only", "corpus,generator,alignment", "--seed", "1")
    assert count >= 12


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_two_hundred_kills_of_all_steps(repository: Path) -> None:
    table, count = kills(repository, 5300)
    print(table)
    assert count >= 200
