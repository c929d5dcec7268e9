"""A command under `run_child`: codes, output as it comes, signals, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.container.supervise import run_child

DRIVER = """
import os, sys
from pipelines.container.supervise import run_child
ended = run_child([sys.executable, "-u", "-c", sys.argv[1]], os.environ)
print("code", ended.code, ended.last_line, flush=True)
"""
PATIENT = """
import signal, sys, time
told = []
def note(number, frame):
    told.append(signal.Signals(number).name)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, note)
print("ready", flush=True)
while not told:
    time.sleep(.02)
time.sleep(.3)  # a second signal would have come by now
print("told", *told, flush=True)
sys.exit(75)
"""
# Leaves a process that has left the group and the session, as torchrun's workers do.
LEAVES_ONE = """
import os, subprocess, sys
sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
same_group = subprocess.Popen(["sleep", "600"])
print(sleeper.pid, same_group.pid, flush=True)
os._exit(0)
"""


@pytest.fixture
def driver(repository: Path) -> Callable[[str], subprocess.Popen[str]]:
    def start(program: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, program],
            env={**os.environ, "PYTHONPATH": str(repository)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit(75)", 75),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os.kill(os.getpid(), 15)", 143),
    ],
)
def test_exit_codes(program: str, code: int) -> None:
    assert run_child(python(program), os.environ).code == code


def test_stderr_is_passed_on_and_its_end_kept(capfd: pytest.CaptureFixture[str]) -> None:
    program = "import sys; sys.stderr.write('x' * 50_000 + '\\nrefused: too bad\\n\\n')"
    ended = run_child(python(program), os.environ)
    assert ended.last_line == "refused: too bad"
    assert len(ended.stderr) <= 16_384
    assert len(capfd.readouterr().err) == 50_000 + len("\nrefused: too bad\n\n")


def test_a_command_that_is_not_there() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(FileNotFoundError):
        run_child(["/no/such/command"], os.environ)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("to_group", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_arrive_once(
    driver: Callable[[str], subprocess.Popen[str]], number: signal.Signals, to_group: bool
) -> None:
    process = driver(PATIENT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"  # it comes through while the command is at work
    if to_group:  # as Argo's first process does
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    rest = process.stdout.read()
    process.wait(timeout=30)
    assert rest == f"told {number.name}\ncode 75 \n"


def test_a_killed_parent_takes_the_command_along(
    driver: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = driver(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); "
                     "print('ready', flush=True); time.sleep(600)")  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    # Whoever inherits the orphan may be slow to reap it, which is not our business.
    assert gone(int((tmp_path / "pid").read_text()), reaped=False)


def test_nobody_is_left_behind(driver: Callable[[str], subprocess.Popen[str]]) -> None:
    process = driver(LEAVES_ONE)
    assert process.stdout is not None
    left = [int(pid) for pid in process.stdout.readline().split()]
    assert process.stdout.read() == "code 0 \n"  # and it did not wait for them either
    process.wait()
    assert len(left) == 2 and all(gone(pid) for pid in left)


def gone(pid: int, reaped: bool = True) -> bool:
    """Whether a process has ended within ten seconds, and its parent has taken note of that."""
    deadline = time.monotonic() + 10
    status = Path(f"/proc/{pid}/status")
    while time.monotonic() < deadline:
        try:
            state = status.read_text().split("State:")[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z" and not reaped:
            return True
        time.sleep(0.05)
    return False
