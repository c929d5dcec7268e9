from __future__ import annotations

import pytest

from pipelines.client.watch import leaf_tasks
from tests.pipelines.client.kfp_messages import Look, Task
from tests.pipelines.client.kfp_server import KfpServer
from tests.pipelines.client.submitting import STEPS, Caller

GET_RUN = r"GET .*/runs/.+"
ALL_DONE = {name: Task("SUCCEEDED") for name in STEPS}
Tasks = dict[str, Task | str]
FOREVER = [Look("RUNNING", {"corpus": "RUNNING"})]


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
