"""The launcher where the job, the cluster, the network or a person ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError
from components.runtime.io import storage
from pipelines.steps import step
from pipelines.trainjob.launch import launch
from tests.pipelines.trainjob.conftest import SETTINGS, Task, succeeds
from tests.pipelines.trainjob.fake_cluster import (
    CORE,
    NAMESPACE,
    Change,
    FakeCluster,
    Fault,
    complete,
    ended,
    failed,
    nothing,
    running,
    says,
    stamp,
    together,
)

DENIED = (
    'trainjobs.trainer.kubeflow.org is forbidden: User "system:serviceaccount:onlinevpo:pipeline-runner" '
    'cannot {verb} resource "{resource}" in API group "" in the namespace "onlinevpo"'
)
TAKEN: dict[str, Any] = {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}
STOPPED = "interrupted: stopped"


@pytest.mark.parametrize(
    ("ends", "words", "kind", "expected"),
    [
        ([ended(0, 3), ended(1, 1)], "refused: saturated", GateRefused, "saturated"),
        ([ended(0, 1, at=-1), ended(1, 2)], "", InputError, "node 1 of TrainJob .* ended with 2"),
        ([ended(0, 75), ended(1, 75)], STOPPED, Interrupted, "stopped"),
        # The job is taken down after a crash: the others are told to stop, and say so.
        ([ended(0, 75, at=2), ended(1, 9, at=1)], STOPPED, OnlineVPOError, "node 1 ended with 9"),
        ([ended(0, 137, "OOMKilled"), ended(1, 1, at=1)], "", OnlineVPOError, "137, OOMKilled: it needs"),
        ([ended(0, 137, **TAKEN)], "", Interrupted, "node 0 .* taken away"),
        ([], "", OnlineVPOError, "FailedJobs: jobset failed"),
    ],
)
def test_why_a_job_failed(
    task: Task,
    cluster: FakeCluster,
    ends: list[Change],
    words: str,
    kind: type[OnlineVPOError],
    expected: str,
) -> None:
    cluster.script = [
        nothing,
        running(),
        *([says("working", words)] if words else []),
        together(*ends, failed),
    ]
    with pytest.raises(kind, match=expected) as caught:
        task.attempt()
    assert type(caught.value) is kind
    assert not task.given.output_file.exists()


def test_the_log_of_the_node_that_failed_is_shown(
    task: Task, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.script = [
        nothing, running(), together(says("fine"), says("CUDA error: ECC", index=1)),
        together(ended(1, 1), failed),
    ]  # fmt: skip
    with pytest.raises(OnlineVPOError, match="node 1 ended with 1"):
        task.attempt()
    assert "node 1: CUDA error: ECC" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("checkpoints", [None, "s3://bucket/checkpoints"])
def test_a_refusal_is_final(
    task: Task, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, checkpoints: str | None
) -> None:
    if checkpoints:
        monkeypatch.setenv("ONLINEVPO_CHECKPOINTS", checkpoints)
    cluster.script = [nothing, running(), says("refused: no pairs"), together(ended(0, 3), failed)]
    with pytest.raises(GateRefused, match="no pairs"):
        task.attempt()
    before = len(cluster.requests)
    with pytest.raises(GateRefused, match="no pairs"):
        task.attempt()
    assert len(cluster.requests) == before
    place = f"{checkpoints}/runs/run-id" if checkpoints else task.base
    assert storage.read_bytes(f"{place}/alignment.refused.json") is not None


def test_complete_without_a_result_is_no_success(task: Task, cluster: FakeCluster) -> None:
    cluster.script = [nothing, running(), complete]
    with pytest.raises(OnlineVPOError, match="complete but its result cannot be used") as caught:
        task.attempt()
    assert caught.value.exit_code == 1 and not task.given.output_file.exists()
    cluster.script = succeeds(task)  # and the next attempt does not take it for one
    task.attempt()
    assert len(cluster.made("POST")) == 2


def test_somebody_deletes_the_job(task: Task, cluster: FakeCluster) -> None:
    cluster.script = [nothing, running(), lambda c: c.job["metadata"].update(deletionTimestamp=stamp())]
    with pytest.raises(OnlineVPOError, match="deleted by somebody else"):
        task.attempt()


@pytest.mark.parametrize("status", [500, 503, 429, 410, 0])
def test_a_server_that_is_away_for_a_while(
    task: Task, cluster: FakeCluster, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.faults = [
        Fault("POST", "/trainjobs$", status, 2), Fault("GET", "/trainjobs/", status, 2),
        Fault("GET", "/pods$", status, 3), Fault("GET", "/events$", status),
        Fault("GET", "/log$", status, 2),
    ]  # fmt: skip
    cluster.script = succeeds(task, nothing, running(), says("alignment: 2/2"), nothing)
    task.attempt()
    assert not any(fault.times for fault in cluster.faults)
    said = capsys.readouterr()
    assert said.out.splitlines() == ["alignment: 2/2"]
    assert "the Kubernetes API fails, trying again" in said.err
    assert len(cluster.made("POST")) == 1


def test_a_server_that_stays_away(task: Task, cluster: FakeCluster) -> None:
    cluster.script = [nothing, running()]
    cluster.faults = [Fault("GET", "/pods$", 503, times=10**6)]
    with pytest.raises(
        Interrupted, match=r"did not answer for .* s \(503 out of order\).*next attempt finds it"
    ):
        task.attempt(patience_s=0.3)
    assert not cluster.made("DELETE")


def test_a_create_whose_answer_is_lost(task: Task, cluster: FakeCluster) -> None:
    """The job was made, the connection broke: trying again must not make or expect a second one."""
    real = FakeCluster.create

    def create(self: FakeCluster, body: dict[str, Any]) -> None:
        real(self, body)
        if len(self.made("POST")) == 1:
            raise ConnectionAbortedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeCluster, "create", create)
        patch.setattr("socketserver.BaseServer.handle_error", lambda *_: None)
        cluster.script = succeeds(task, running())
        task.attempt()
    assert len(cluster.jobs) == 1 and not cluster.made("DELETE")


@pytest.mark.parametrize(
    ("method", "path", "verb", "resource"),
    [
        ("GET", "/trainjobs/", "get", "trainjobs"),
        ("POST", "/trainjobs$", "create", "trainjobs"),
        ("GET", "/pods$", "list", "pods"),
        ("GET", "/events$", "list", "events"),
    ],
)
def test_a_missing_right_is_named(
    task: Task, cluster: FakeCluster, method: str, path: str, verb: str, resource: str
) -> None:
    denied = DENIED.format(verb=verb, resource=resource)
    cluster.faults = [Fault(method, path, 403, times=10**6, message=denied)]
    with pytest.raises(InputError, match=f"lacks the verb `{verb}` on {resource}$") as caught:
        task.attempt()
    assert "system:serviceaccount:onlinevpo:pipeline-runner" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_right_to_logs_does_not_end_the_run(
    task: Task, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    denied = DENIED.format(verb="get", resource="pods/log")
    cluster.faults = [Fault("GET", "/log$", 403, times=10**6, message=denied)]
    cluster.script = succeeds(task, running(), *[nothing] * 5)
    task.attempt()
    assert capsys.readouterr().err.count("lacks the verb `get` on pods/log") == 1


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (404, "the server could not find the requested resource", "install Kubeflow Trainer 2.3"),
        (400, "admission webhook denied: runtime not found", "admission webhook denied: runtime not found"),
        (403, "exceeded quota: count/trainjobs", "refused \\(403\\): exceeded quota"),
    ],
)
def test_a_cluster_that_will_not_have_it(
    task: Task, cluster: FakeCluster, status: int, message: str, words: str
) -> None:
    cluster.faults = [Fault("POST", "/trainjobs$", status, message=message)]
    with pytest.raises(InputError, match=words):
        task.attempt()


def test_a_log_whose_connection_breaks(
    task: Task, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken in the middle of lines, three times; equal lines stay as many as they were."""
    lines = ["loss nan" if n % 3 == 0 else f"iteration {n} größer" for n in range(40)]
    cluster.break_log_after = [7, 0, 20]
    cluster.script = succeeds(task, running(), says(*lines), *[nothing] * 20, says("the end"))
    task.attempt()
    assert capsys.readouterr().out.splitlines() == [*lines, "the end"]
    assert len([r for r in cluster.requests if r.endswith("/log")]) >= 4


def test_places_that_nodes_cannot_reach(task: Task) -> None:
    task.text = task.text.replace("minio://bucket/v2/artifacts/onlinevpo/run-0/corpus", "/data/corpus")
    with pytest.raises(InputError, match=r"input corpus at /data/corpus.*need an s3:// place"):
        task.attempt()


def test_a_step_that_does_not_scale(task: Task) -> None:
    with pytest.raises(InputError, match="corpus runs on one node only"):
        launch(step("corpus"), task.given, SETTINGS, run="r", task="7")


def command(task: Task, tmp_path: Path, **variables: str) -> subprocess.Popen[str]:
    """The launcher as the process that the pipeline starts."""
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": task.cluster.endpoint}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
    }  # fmt: skip
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(kubeconfig))
    arguments = ["--executor-input", task.text, "--executor-output", "{{$.outputs.output_file}}"]
    arguments += [
        "--run",
        "run-id",
        "--task",
        "7",
        "--job",
        SETTINGS.model_dump_json(),
        "--poll-seconds",
        "0.05",
    ]
    repository = str(Path(__file__).resolve().parents[3])
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.trainjob", "alignment", *arguments],
        env={**os.environ, "KUBECONFIG": str(file), "PYTHONPATH": repository, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_sigterm_cancels(task: Task, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.script = [nothing, running(), says("alignment: 1/2")]
    process = command(task, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "alignment: 1/2\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert said.strip().splitlines()[-1].startswith("interrupted: stopped on request, TrainJob alignment-")
    assert not cluster.jobs and cluster.deleted[0]["propagationPolicy"] == "Foreground"
    assert not task.given.output_file.exists()
    # The retry makes a new one, which resumes from the checkpoints.
    cluster.script = succeeds(task, running())
    again = command(task, tmp_path)
    said = again.communicate(timeout=120)[1]
    assert again.returncode == 0, said
    assert task.output()["artifacts"]["metrics"]


def test_sigterm_in_the_queue_while_the_server_is_away(
    task: Task, cluster: FakeCluster, tmp_path: Path
) -> None:
    """It strikes in the middle of a call that is being tried again."""
    cluster.script = [nothing, nothing]
    cluster.faults = [Fault("GET", "/events$", 503, times=10**6)]
    process = command(task, tmp_path)
    deadline = time.monotonic() + 60
    while cluster.faults[0].times > 10**6 - 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert not cluster.jobs


def test_exit_codes_of_the_command(task: Task, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.script = [nothing, running(), says("refused: no pairs"), together(ended(0, 3), failed)]
    process = command(task, tmp_path)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert said.strip().splitlines()[-1] == "refused: no pairs"
    assert f"{CORE}/pods/" in "".join(cluster.requests)
