"""The launcher against a Kubernetes API and an S3 store over HTTP."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.runtime.artifacts.artifact import open_artifact
from components.runtime.errors import InputError, OnlineVPOError
from components.runtime.io import storage
from tests.pipelines.trainjob.conftest import SEED, SETTINGS, Task, succeeds
from tests.pipelines.trainjob.fake_cluster import (
    JOBS,
    FakeCluster,
    Fault,
    complete,
    ended,
    failed,
    nothing,
    running,
    says,
    stamp,
    state,
    together,
)


def test_creates_waits_and_hands_over(
    task: Task, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.script = succeeds(task, running(), says("alignment: 1/2", "alignment: 2/2"))
    task.attempt()

    assert cluster.made("POST") == [f"POST {JOBS}"]
    assert not cluster.made("DELETE")
    command = cluster.job["spec"]["trainer"]["command"]
    assert (
        command[command.index("--corpus") + 1] == "s3://bucket/v2/artifacts/onlinevpo/run-0/corpus/t/artifact"
    )
    written = storage.read_bytes(command[command.index("--params") + 1])
    assert written is not None
    assert json.loads(written) == {"run": {"seed": SEED}, "alignment": {"iterations": 2}}
    assert cluster.job["metadata"]["annotations"]["onlinevpo/run"] == "run-id"

    artifact = open_artifact(task.out, step="alignment")
    assert artifact.file("lora/pytorch_lora_weights.safetensors").read_bytes() == b"weights"
    output = task.output()["artifacts"]
    (entry,) = output["artifact"]["artifacts"]
    assert entry["metadata"]["digest"] == artifact.manifest.digest
    assert output["metrics"]["artifacts"][0]["metadata"] == {"updates": 6.0}
    said = capsys.readouterr()
    assert said.out.splitlines() == ["alignment: 1/2", "alignment: 2/2"]
    assert "running on 2 nodes" in said.err and "is complete" in said.err


def test_tracking_is_handed_on(task: Task, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    cluster.script = succeeds(task)
    task.attempt()
    variables = {entry["name"]: entry.get("value") for entry in cluster.job["spec"]["trainer"]["env"]}
    assert (variables["MLFLOW_RUN_ID"], variables["ONLINEVPO_RUN"]) == ("abc", "run-id")


def test_a_retry_finds_the_running_job(
    task: Task, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.script = [nothing, running()]
    cluster.faults = [Fault("GET", "/pods$", 401)]
    with pytest.raises(InputError, match="token"):  # this attempt's pod dies, the TrainJob lives on
        task.attempt()
    cluster.script = [nothing, says("alignment: 2/2"), together(task.publish, complete)]
    task.attempt()
    assert len(cluster.made("POST")) == 1 and not cluster.made("DELETE")
    assert "found TrainJob" in capsys.readouterr().err
    open_artifact(task.out, step="alignment")


def test_a_retry_after_the_end_needs_no_cluster(task: Task, cluster: FakeCluster) -> None:
    """The artifact was published, but the launcher died before it had handed it over."""
    cluster.script = succeeds(task)
    task.attempt()
    before = len(cluster.requests)
    task.given.output_file.unlink()
    task.attempt()
    assert len(cluster.requests) == before
    assert task.output()["artifacts"]["artifact"]


def test_a_published_artifact_that_is_damaged_is_made_again(
    task: Task, cluster: FakeCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.script = succeeds(task)
    task.attempt()
    bad = tmp_path / "bad"
    bad.write_bytes(b"weighty")
    storage.write_file(bad, f"{task.base}/artifact/lora/pytorch_lora_weights.safetensors")
    os.environ["ONLINEVPO_CACHE"] = str(tmp_path / "another machine")
    cluster.script = succeeds(task, nothing)
    task.attempt()
    assert len(cluster.made("POST")) == 2 and len(cluster.made("DELETE")) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_a_failed_job_is_replaced_and_awaited_until_gone(task: Task, cluster: FakeCluster) -> None:
    cluster.script = [nothing, running(), together(ended(1, 1), failed)]
    with pytest.raises(OnlineVPOError, match="node 1 ended with 1"):
        task.attempt()
    assert not cluster.made("DELETE")  # left for people to look at
    first = cluster.job["metadata"]["uid"]
    cluster.looks_until_gone = 3
    cluster.script = succeeds(task, running())
    task.attempt()
    assert cluster.deleted[0]["propagationPolicy"] == "Foreground"
    assert cluster.job["metadata"]["uid"] != first
    assert len(cluster.made("POST")) == 2


def test_queue_time_is_no_failure(
    task: Task, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Queued for long, admitted, preempted, admitted again with new pods: one job, one result."""

    def created_long_ago(cluster: FakeCluster) -> None:
        cluster.job["metadata"]["creationTimestamp"] = stamp(40 * 24 * 3600)
        cluster.set_condition("Suspended", "Suspended")
        cluster.events.append(
            {"type": "Normal", "reason": "Pending", "message": "insufficient unused quota for nvidia.com/gpu",
             "involvedObject": {"kind": "Workload", "name": f"trainjob-{cluster.name}-1a2b3"},
             "lastTimestamp": stamp()}
        )  # fmt: skip

    def admitted(cluster: FakeCluster) -> None:
        assert cluster.job["spec"]["suspend"] is True
        cluster.job["spec"]["suspend"] = False
        cluster.set_condition("Suspended", "Resumed", status="False")

    def preempted(cluster: FakeCluster) -> None:
        cluster.job["spec"]["suspend"] = True
        cluster.pods.clear()
        cluster.generation += 1

    cluster.script = succeeds(
        task,
        created_long_ago, *[nothing] * 30, admitted, running(), says("first half"), preempted,
        *[nothing] * 5, admitted, running(), says("second half"),
    )  # fmt: skip
    task.attempt(SETTINGS.model_copy(update={"queue": "training", "timeout_minutes": 30}))
    assert cluster.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert len(cluster.made("POST")) == 1 and not cluster.made("DELETE")
    said = capsys.readouterr()
    assert said.out.splitlines() == ["first half", "second half"]
    assert said.err.count("is queued in training") == 2
    assert said.err.count("insufficient unused quota") == 1


def test_runs_too_long(task: Task, cluster: FakeCluster) -> None:
    cluster.script = [nothing, nothing, running(since_s=5), nothing, running(since_s=1890)]
    with pytest.raises(
        OnlineVPOError, match=r"ran for 3\dm\d\ds, longer than timeout_minutes = 30"
    ) as caught:
        task.attempt(SETTINGS.model_copy(update={"timeout_minutes": 30}))
    assert caught.value.exit_code == 1
    assert len(cluster.made("DELETE")) == 1


def test_waits_too_long_where_a_limit_is_set(
    task: Task, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("pipelines.trainjob.watch.time", FakeTime(now))

    def later(cluster: FakeCluster) -> None:
        now[0] += 59.0

    cluster.script = [nothing, *[later] * 4]
    with pytest.raises(OnlineVPOError, match=r"starting: 0 of 2 nodes run after queue_timeout_minutes = 3"):
        task.attempt(SETTINGS.model_copy(update={"queue_timeout_minutes": 3}))
    assert len(cluster.made("DELETE")) == 1


@dataclass
class FakeTime:
    now: list[float]

    def monotonic(self) -> float:
        return self.now[0]

    def sleep(self, seconds: float) -> None:
        pass


def test_pending_reasons_are_told_once_each(
    task: Task, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    unschedulable = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/5 nodes are available: 5 Insufficient nvidia.com/gpu.",
    }  # fmt: skip

    def none_fits(cluster: FakeCluster) -> None:
        for index in range(2):
            cluster.set_pod(index, conditions=[unschedulable])

    def one_fits(cluster: FakeCluster) -> None:
        waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "registry.example/x"'}
        cluster.set_pod(0, **state(waiting=waiting))

    def quota(cluster: FakeCluster) -> None:
        event = {
            "type": "Warning", "reason": "FailedCreate",
            "message": "pods is forbidden: exceeded quota: compute",
            "involvedObject": {"kind": "Job", "name": f"{cluster.name}-node-0"}, "lastTimestamp": stamp(),
        }  # fmt: skip
        old = {**event, "message": "of a job before", "lastTimestamp": stamp(3600)}
        other = {**event, "message": "of another job", "involvedObject": {"kind": "Job", "name": "else"}}
        cluster.events += [event, old, other]

    cluster.script = succeeds(
        task, none_fits, none_fits, one_fits, nothing, quota, none_fits, nothing, running()
    )
    task.attempt()
    said = capsys.readouterr().err
    assert said.count("2 of its nodes wait: Unschedulable: 0/5 nodes are available") == 1
    assert said.count("1 of its nodes wait: Unschedulable") == 1
    assert said.count("ImagePullBackOff: Back-off pulling image") == 1
    assert said.count("Job FailedCreate: pods is forbidden: exceeded quota") == 1
    assert "of a job before" not in said and "of another job" not in said
