from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.client.watch import leaf_tasks, watch_run
from tests.pipelines.kfp_server import KfpServer, Look, Task, Trouble, serving
from tests.pipelines.submitting import REPOSITORY, STEPS, Caller, Time, compiled_text

GET_RUN = r"GET .*/runs/.+"
ALL_DONE = {name: Task("SUCCEEDED") for name in STEPS}
Tasks = dict[str, Task | str]
FOREVER = [Look("RUNNING", {"corpus": "RUNNING"})]


@pytest.fixture(autouse=True)
def _outside_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KF_PIPELINES_SA_TOKEN_PATH", "KF_PIPELINES_UI_ENDPOINT", "KFP_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kfp_server() -> Iterator[KfpServer]:
    with serving() as server:
        yield server


@pytest.fixture
def caller(kfp_server: KfpServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Caller:
    (tmp_path / "pipeline.yaml").write_text(compiled_text())
    return Caller(kfp_server, capsys, tmp_path / "pipeline.yaml")


def url(server: KfpServer) -> str:
    (run,) = server.runs
    return f"{server.host}/#/runs/details/{run}"


# How a run ends


def test_a_run_that_succeeds_is_told_change_by_change(caller: Caller) -> None:
    caller.server.script = [
        Look("PENDING"),
        Look("RUNNING", {"corpus": "PENDING", "generator": "RUNTIME_STATE_UNSPECIFIED"}),
        Look("RUNNING", {"corpus": "RUNNING"}),
        Look("RUNNING", {"corpus": "RUNNING"}),
        Look("RUNNING", {"corpus": Task("SUCCEEDED", seconds=42), "generator": "RUNNING"}),
        Look("SUCCEEDED", ALL_DONE),
    ]
    end = caller.submit(wait=True)
    assert (end.code, end.error, end.err) == (0, "", "")
    assert end.out[0] == url(caller.server)
    assert end.told[:6] == [
        ("run", "pending"),
        ("corpus", "pending"),
        ("run", "running"),
        ("corpus", "running"),
        ("corpus", "succeeded after 42s"),
        ("generator", "running"),
    ]
    assert end.told[6:] == [(name, "succeeded after 30s") for name in STEPS[1:]] + [("run", "succeeded")]
    assert [line.split()[0] for line in end.out[1:6]] == ["0s", "5s", "5s", "10s", "20s"]


def test_each_look_waits_its_turn_and_silence_is_broken_now_and_then(caller: Caller) -> None:
    working = Look("RUNNING", {"corpus": "SUCCEEDED", "generator": "RUNNING"})
    caller.server.script = [working] * 120 + [Look("SUCCEEDED", ALL_DONE)]
    end = caller.submit(wait=True)
    assert end.code == 0
    assert caller.time.sleeps == [5.0] * 120
    assert len(caller.server.lines(GET_RUN)) == 121
    signs = [line for line in end.out if "generator running for" in line]
    assert [line.split()[0] for line in signs] == [f"{minute}m00s" for minute in range(1, 10)]
    assert signs[0].split(maxsplit=2)[2] == "generator running for 1m00s; 1 of 7 tasks done"


def test_a_step_that_fails_is_told_with_its_reason(caller: Caller) -> None:
    tasks: Tasks = {
        "corpus": "SUCCEEDED",
        "generator": Task("FAILED", "exit status 1:\n  no space left"),
        "finish": "SUCCEEDED",
    }
    caller.server.script = [Look("RUNNING", {"corpus": "RUNNING"}), Look("FAILED", tasks)]
    end = caller.submit(wait=True)
    assert end.code == 1
    assert end.error == f"failed: generator: exit status 1: no space left; {url(caller.server)}"
    assert ("generator", "failed after 30s: exit status 1: no space left") in end.told
    assert end.told[-1] == ("run", "did not start: reward, alignment, evaluation, registry")


def test_a_server_that_gives_no_reason(caller: Caller) -> None:
    caller.server.script = [Look("FAILED", {**ALL_DONE, "evaluation": "FAILED"})]
    end = caller.submit(wait=True)
    assert end.code == 1
    assert end.error == f"failed: evaluation; the server gives no reason, its log does: {url(caller.server)}"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("refused: rank correlation 0.31 < 0.6", "rank correlation 0.31 < 0.6"),
        ("main: refused: rank correlation 0.31 < 0.6", "rank correlation 0.31 < 0.6"),
        ("Component failed to execute successfully: exit status 3", None),
        ("Error (exit code 3)", None),
    ],
)
def test_a_gate_s_refusal_is_one_here_too_if_the_server_tells(
    caller: Caller, message: str, said: str | None
) -> None:
    tasks: Tasks = {"corpus": "SUCCEEDED", "generator": "SUCCEEDED", "reward": Task("FAILED", message)}
    caller.server.script = [Look("FAILED", tasks)]
    end = caller.submit(wait=True)
    assert end.code == 3
    assert end.error == f"refused: reward: {said or message}; {url(caller.server)}"


@pytest.mark.parametrize(
    "task",
    [
        Task("FAILED", "invalid argument", code=3),  # a gRPC status, not an exit code
        Task("FAILED", "exit status 30"),
        Task("FAILED", "dial tcp 10.0.0.1:9000: connect: connection refused: giving up"),
    ],
)
def test_other_failures_are_no_refusals(caller: Caller, task: Task) -> None:
    caller.server.script = [Look("FAILED", {**ALL_DONE, "reward": task})]
    assert caller.submit(wait=True).code == 1


def test_an_attempt_that_fails_is_told_once_while_another_follows(caller: Caller) -> None:
    again: Tasks = {"corpus": "SUCCEEDED", "generator": Task("RUNNING", failed_attempts=1)}
    caller.server.script = [
        Look("RUNNING", {"corpus": "SUCCEEDED", "generator": "RUNNING"}),
        Look("RUNNING", again),
        Look("RUNNING", again),
        Look("SUCCEEDED", {**ALL_DONE, "generator": Task("SUCCEEDED", failed_attempts=1)}),
    ]
    end = caller.submit(wait=True)
    assert end.code == 0
    assert [told for told in end.told if "attempt" in told[1]] == [
        ("generator", "attempt 1 failed, trying again")
    ]


def test_a_step_whose_container_never_started(caller: Caller) -> None:
    caller.server.script = [Look("FAILED", {"corpus": "SUCCEEDED", "generator-driver": "FAILED"})]
    end = caller.submit(wait=True)
    assert end.code == 1
    assert "generator: Kubeflow's driver failed before the step could start" in end.error


def test_a_time_that_is_not_known_is_not_reckoned_with(caller: Caller) -> None:
    caller.server.script = [Look("FAILED", {"corpus": Task("FAILED", started=False)})]
    assert caller.submit(wait=True).told[0] == ("corpus", "failed")


def test_nodes_of_the_engine_are_not_told_of(caller: Caller) -> None:
    caller.server.script = [Look("RUNNING", {"corpus": "RUNNING"}), Look("SUCCEEDED", ALL_DONE)]
    assert {who for who, _ in caller.submit(wait=True).told} == {"run", *STEPS}


@pytest.mark.parametrize(
    "script",
    [
        [Look("CANCELING"), Look("CANCELED")],
        [Look("CANCELING", {"corpus": "RUNNING"}), Look("FAILED", {"corpus": "FAILED"})],
        [Look("FAILED", {"corpus": "FAILED"}, history=["RUNNING", "CANCELING"])],
    ],
)
def test_a_run_that_somebody_cancels(caller: Caller, script: list[Look]) -> None:
    caller.server.script = [Look("RUNNING", {"corpus": "RUNNING"}), *script]
    end = caller.submit(wait=True)
    assert end.code == 130
    assert end.error.startswith("cancelled: after ")
    assert end.error.endswith(url(caller.server))


def test_a_run_that_somebody_deletes(caller: Caller) -> None:
    caller.server.script = FOREVER
    caller.time.then[3] = caller.server.runs.clear
    end = caller.submit(wait=True)
    assert end.code == 1
    assert "the run was deleted" in end.error


def test_a_skipped_run_did_not_do_its_work(caller: Caller) -> None:
    caller.server.script = [Look("SKIPPED")]
    assert caller.submit(wait=True).code == 1


def test_the_run_s_record_comes_before_that_of_its_tasks(caller: Caller) -> None:
    late: Tasks = {"corpus": "SUCCEEDED", "generator": "RUNNING"}
    caller.server.script = [
        Look("FAILED", late),
        Look("FAILED", {**late, "generator": Task("FAILED", "out of memory")}),
    ]
    assert "generator: out of memory" in caller.submit(wait=True).error
    caller.server.runs.clear()
    caller.server.script = [Look("FAILED", late)]
    caller.time.sleeps.clear()
    assert caller.submit(wait=True).code == 1
    assert len(caller.time.sleeps) == 2


def test_a_run_whose_record_cannot_be_read_for_a_while(caller: Caller) -> None:
    unreadable = Look(None, error="Failed to parse runtime config")
    caller.server.script = [*FOREVER, unreadable, unreadable, Look("SUCCEEDED", ALL_DONE)]
    end = caller.submit(wait=True)
    assert end.code == 0
    assert end.err.count("cannot tell how the run is: Failed to parse runtime config") == 1


def test_text_of_the_server_stays_in_its_line(caller: Caller) -> None:
    evil = Task("FAILED", "\x1b[2J\x1b]0;title\x07 bad\r\nrun  succeeded \u202e " + "x" * 5000)
    caller.server.script = [Look("FAILED", {**ALL_DONE, "reward": evil})]
    end = caller.submit(wait=True)
    assert not set("\x1b\x07\r\u202e") & set("".join(end.out) + end.error)
    assert max(map(len, [*end.out, end.error])) < 700


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


def test_tasks_that_run_a_container_are_told_of_others_are_not() -> None:
    leaf = {"componentRef": {"name": "comp-leaf"}}
    spec = {
        "root": {"dag": {"tasks": {"group": {"componentRef": {"name": "comp-group"}}, "finish": leaf}}},
        "components": {
            "comp-leaf": {"executorLabel": "exec"},
            "comp-group": {"dag": {"tasks": {"reward": leaf, "extra": leaf, "corpus": leaf}}},
        },
    }
    assert leaf_tasks(spec) == leaf_tasks({"pipeline_spec": spec}) == ("corpus", "reward", "finish", "extra")
    assert leaf_tasks({}) == ()
