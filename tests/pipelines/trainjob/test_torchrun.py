"""torchrun's wrapper: the step's exit code is the container's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.trainjob.torchrun import telling_code

STEP = """
import os, signal, sys, time
code = int(sys.argv[1])
if code == 75:
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print("saved", flush=True), sys.exit(75)))
    print("up", flush=True)
    time.sleep(60)
if int(os.environ["RANK"]) == 0:
    sys.exit(code)
time.sleep(60 if code else 0)
"""


def start(tmp_path: Path, repository: Path, *arguments: str) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(STEP)
    wrapper = [sys.executable, "-m", "pipelines.trainjob.torchrun", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*wrapper, str(script), *arguments], env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(("ends_with", "expected"), [(3, 3), (9, 1)])
def test_exit_code(tmp_path: Path, repository: Path, ends_with: int, expected: int) -> None:
    process = start(tmp_path, repository, str(ends_with))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == expected, output
    assert ("Root Cause" in output) == (expected == 1)


def test_interrupt(tmp_path: Path, repository: Path) -> None:
    process = start(tmp_path, repository, "75")
    assert process.stdout is not None
    seen = ""
    while seen.count("up") < 2:
        seen += process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert output.count("saved") == 2


@pytest.mark.parametrize(
    ("codes", "code"), [([1, 3], 3), ([-15, 2, 75], 2), ([75, 1], 75), ([1, -9], 1), ([137], 1)]
)
def test_telling_code(codes: list[int], code: int) -> None:
    assert telling_code(codes) == code
