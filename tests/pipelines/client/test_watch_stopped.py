"""Following a run while the server is away, and after Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.client.watch import watch_run
from tests.pipelines.client.kfp_messages import Look, Task
from tests.pipelines.client.kfp_server import KfpServer, Trouble
from tests.pipelines.client.submitting import REPOSITORY, STEPS, Caller, Time

GET_RUN = r"GET .*/runs/.+"
ALL_DONE = {name: Task("SUCCEEDED") for name in STEPS}
FOREVER = [Look("RUNNING", {"corpus": "RUNNING"})]


def url(server: KfpServer) -> str:
    (run,) = server.runs
    return f"{server.host}/#/runs/details/{run}"


# Servers that fail, tokens that change, while a run is followed


@pytest.mark.parametrize("kind", [500, 503, "reset", "page", "no page"])
def test_a_server_that_is_away_for_a_while(caller: Caller, kind: int | str) -> None:
    caller.server.script = [*FOREVER, Look("SUCCEEDED", ALL_DONE)]
    caller.server.troubles = [Trouble(GET_RUN, kind, times=4)]
    end = caller.submit(wait=True)
    assert end.code == 0
    away, back = end.err.splitlines()
    assert "trying again for up to 5m00s" in away and "answers again" in back


def test_a_server_that_dies_and_comes_back(caller: Caller) -> None:
    caller.server.script = [*FOREVER, *FOREVER, Look("SUCCEEDED", ALL_DONE)]
    caller.time.then = {1: caller.server.stop, 6: caller.server.start}
    end = caller.submit(wait=True)
    assert end.code == 0
    assert "no answer" in end.err and "answers again" in end.err


def test_a_server_that_dies_for_good(caller: Caller) -> None:
    caller.server.script = FOREVER
    caller.time.then = {2: caller.server.stop}
    end = caller.submit(wait=True, polling=caller.time.polling(give_up_after=600.0))
    assert end.code == 75
    assert "tried for 10m" in end.error
    assert end.error.endswith(f"the run goes on: {url(caller.server)}")
    assert caller.time.now < 700
    assert len(caller.time.sleeps) < 50


def test_a_server_that_does_not_answer_at_all(caller: Caller) -> None:
    caller.server.troubles = [Trouble(GET_RUN, "hang", times=1)]
    end = caller.submit(wait=True, polling=caller.time.polling(request_timeout=0.2))
    assert end.code == 0
    assert "timed out" in end.err


def test_a_renewed_token_is_used_at_once(caller: Caller, tmp_path: Path) -> None:
    file = tmp_path / "token"

    def renew() -> None:
        caller.server.token = "second"
        file.write_text("second")

    caller.server.token = "first"
    file.write_text("first")
    caller.server.script = [*FOREVER * 3, Look("SUCCEEDED", ALL_DONE)]
    # The second time the file is found as a kubelet's rewriting may leave it: empty for a moment.
    caller.time.then = {1: renew, 2: lambda: file.write_text("")}
    end = caller.submit(wait=True, token_file=file)
    assert (end.code, end.err) == (0, "")
    shown = [r.headers["authorization"] for r in caller.server.requests if "runs/" in r.path]
    assert shown == ["Bearer first", "Bearer second", "Bearer second", "Bearer second"]


def test_a_token_renewed_while_a_request_was_on_its_way(caller: Caller, tmp_path: Path) -> None:
    file = tmp_path / "token"
    caller.server.token = "first"
    file.write_text("first")
    caller.server.script = [*FOREVER, Look("SUCCEEDED", ALL_DONE)]
    answer = caller.server._answer

    def renewing(request: Any, kind: Any) -> Any:
        if "runs/" in request.path and caller.server.token == "first":
            caller.server.token = "second"
            file.write_text("second")
        return answer(request, kind)

    caller.server._answer = renewing  # type: ignore[method-assign]
    assert caller.submit(wait=True, token_file=file).code == 0


def test_a_token_that_expires_while_following(caller: Caller, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first")
    caller.server.token = "first"
    caller.server.script = FOREVER
    caller.time.then = {2: lambda: setattr(caller.server, "token", "second")}
    end = caller.submit(wait=True, token_file=tmp_path / "token")
    assert end.code == 2
    assert "401: it does not accept the token of" in end.error
    assert end.error.endswith(f"the run goes on: {url(caller.server)}")


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("choice", ["leave", "ask"])  # nobody is at a terminal here
def test_leaving_lets_the_run_go_on(caller: Caller, number: signal.Signals, choice: str) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    caller.server.script = FOREVER
    caller.time.then = {2: lambda: os.kill(os.getpid(), number)}
    end = caller.submit(wait=True, on_interrupt=choice)
    assert end.code == 75
    assert end.error == f"interrupted: no longer following; the run goes on: {url(caller.server)}"
    assert caller.server.lines(":terminate") == []
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cancelling_follows_the_run_to_its_end(caller: Caller, number: signal.Signals) -> None:
    caller.server.script = FOREVER
    caller.server.after_terminate = [
        Look("CANCELING", {"corpus": "RUNNING"}),
        Look("FAILED", {"corpus": "FAILED", "finish": "SUCCEEDED"}),
    ]
    caller.time.then = {2: lambda: os.kill(os.getpid(), number)}
    end = caller.submit(wait=True, on_interrupt="cancel")
    assert end.code == 130
    assert len(caller.server.lines(":terminate")) == 1
    assert ("finish", "succeeded after 30s") in end.told


def test_an_interrupt_while_the_run_is_being_cancelled_leaves(caller: Caller) -> None:
    caller.server.script = FOREVER
    caller.server.after_terminate = [Look("CANCELING", {"corpus": "RUNNING"})]
    caller.time.then = {n: lambda: os.kill(os.getpid(), signal.SIGINT) for n in (2, 4)}
    end = caller.submit(wait=True, on_interrupt="cancel")
    assert end.code == 75
    assert len(caller.server.lines(":terminate")) == 1


def test_a_run_that_ends_while_it_is_being_cancelled(caller: Caller) -> None:
    caller.server.script = [*FOREVER, *FOREVER, Look("SUCCEEDED", ALL_DONE)]

    def interrupt() -> None:
        next(iter(caller.server.runs.values()))["state"] = "SUCCEEDED"
        os.kill(os.getpid(), signal.SIGINT)

    caller.time.then = {2: interrupt}
    assert caller.submit(wait=True, on_interrupt="cancel").code == 0


def test_a_run_that_may_not_be_cancelled(caller: Caller) -> None:
    caller.server.script = FOREVER
    caller.server.troubles = [Trouble(":terminate", 403)]
    caller.time.then = {2: lambda: os.kill(os.getpid(), signal.SIGINT)}
    end = caller.submit(wait=True, on_interrupt="cancel")
    assert end.code == 75
    assert "the run could not be cancelled" in end.error and "403" in end.error
    assert end.error.endswith(f"and goes on: {url(caller.server)}")


class Command:
    """The real command in a process of its own; `said` is what it has written to its terminal."""

    def __init__(self, caller: Caller, *options: str, terminal: bool = False) -> None:
        self.server = caller.server
        self.master, slave = pty.openpty() if terminal else (-1, -1)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KF")}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pipelines",
                "submit",
                str(caller.pipeline),
                "--host",
                caller.server.host,
                *options,
            ],
            cwd=REPOSITORY,
            env={**environment, "OMP_NUM_THREADS": "1"},
            stdin=slave if terminal else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=slave if terminal else subprocess.PIPE,
            text=True,
        )
        if terminal:
            os.close(slave)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def read_terminal(self, until: str) -> str:
        said = ""
        while until not in said:
            said += os.read(self.master, 1000).decode()
        return said

    def answer(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> tuple[int, list[str], str]:
        out, err = self.process.communicate(timeout=60)
        if self.master >= 0:
            os.close(self.master)
        return self.process.returncode, out.splitlines(), err or ""


def test_the_command_prints_the_url_first_and_ends_as_the_run_does(caller: Caller) -> None:
    caller.server.script = [Look("FAILED", {"corpus": Task("FAILED", "refused: 3 < 4")})]
    code, out, err = Command(caller, "--wait").end()
    assert code == 3
    assert out[0] == url(caller.server)
    assert err.splitlines()[-1] == f"refused: corpus: 3 < 4; {url(caller.server)}"


@pytest.mark.parametrize(
    ("choice", "number", "code", "terminated"),
    [
        ("leave", signal.SIGINT, 75, False),
        ("ask", signal.SIGINT, 75, False),
        ("cancel", signal.SIGINT, 130, True),
    ],
)
def test_a_signal_to_the_command(
    caller: Caller, choice: str, number: signal.Signals, code: int, terminated: bool
) -> None:
    caller.server.script = FOREVER
    caller.server.after_terminate = [Look("CANCELED")]
    command = Command(caller, "--wait", "--on-interrupt", choice)
    caller.server.wait_for(GET_RUN)
    command.interrupt(number)
    ended, out, err = command.end()
    assert ended == code, err
    assert out[0] == url(caller.server)
    assert "Traceback" not in err
    assert bool(caller.server.lines(":terminate")) is terminated


@pytest.mark.parametrize(("reply", "code"), [("y\n", 130), ("\n", 75)])
def test_at_a_terminal_the_person_is_asked(caller: Caller, reply: str, code: int) -> None:
    caller.server.script = FOREVER
    caller.server.after_terminate = [Look("CANCELED")]
    command = Command(caller, "--wait", "--on-interrupt", "ask", terminal=True)
    caller.server.wait_for(GET_RUN)
    command.interrupt()
    assert "Cancel the run?" in command.read_terminal("[y/N]")
    command.answer(reply)
    assert command.end()[0] == code
    assert bool(caller.server.lines(":terminate")) is (code == 130)


def test_a_second_interrupt_leaves_at_once(caller: Caller) -> None:
    caller.server.script = FOREVER
    caller.server.troubles = [Trouble(":terminate", "hang", times=1)]
    command = Command(caller, "--wait", "--on-interrupt", "cancel")
    caller.server.wait_for(GET_RUN)
    command.interrupt()
    caller.server.wait_for(":terminate")
    command.interrupt()
    code, _, err = command.end()
    assert code == 75
    assert err.splitlines()[-1] == f"interrupted: no longer following; the run goes on: {url(caller.server)}"


# A run that was submitted before, and the names of its tasks


def test_a_run_is_followed_again(caller: Caller) -> None:
    caller.server.script = [*FOREVER, Look("FAILED", {"corpus": Task("FAILED", "exit status 1")})]
    caller.submit()
    (run,) = caller.server.runs
    end = caller.end(lambda: watch_run(run, host=caller.server.host, polling=Time().polling()))
    assert end.code == 1
    assert end.out[0] == url(caller.server)
    assert ("corpus", "failed after 30s: exit status 1") in end.told
    none = caller.end(lambda: watch_run("no-such-run", host=caller.server.host))
    assert none.code == 2
    assert "run no-such-run" in none.error
