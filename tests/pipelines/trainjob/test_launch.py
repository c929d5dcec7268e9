"""The launcher against a Kubernetes API and an S3 store over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.outputs import artifact_of, replaceable
from components.runtime.artifacts.publish import publish
from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError
from components.runtime.io import storage
from components.runtime.params import StepParams
from pipelines.container.executor_io import ExecutorInput
from pipelines.steps import step
from pipelines.trainjob.kubernetes_api import Cluster
from pipelines.trainjob.launch import launch
from pipelines.trainjob.settings import TrainJobSettings
from tests.pipelines.trainjob.conftest import Store
from tests.pipelines.trainjob.fake_cluster import (
    CORE,
    JOBS,
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
    state,
    together,
)

ALIGNMENT = step("alignment")
SETTINGS = TrainJobSettings(image="registry.example/onlinevpo-model@sha256:" + "a" * 64, nodes=2)
SEED = 2**62 + 1
DENIED = (
    'trainjobs.trainer.kubeflow.org is forbidden: User "system:serviceaccount:onlinevpo:pipeline-runner" '
    'cannot {verb} resource "{resource}" in API group "" in the namespace "onlinevpo"'
)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as fake:
        yield fake


@dataclass
class Task:
    """A task of a pipeline run, whose attempts can be repeated."""

    folder: Path
    cluster: FakeCluster
    text: str

    @property
    def given(self) -> ExecutorInput:
        return ExecutorInput.parse(self.text)

    @property
    def out(self) -> Path:
        return self.given.output("artifact").path

    @property
    def base(self) -> str:
        return "s3://bucket/v2/artifacts/onlinevpo/run-id/alignment/task-id/artifact.trainjob"

    def attempt(
        self, settings: TrainJobSettings = SETTINGS, run: str | None = "run-id", **options: Any
    ) -> None:
        """One attempt by the launcher, in this process."""
        patience_s = options.pop("patience_s", 30.0)

        def connect() -> Cluster:
            return Cluster(self.cluster.client(), NAMESPACE, patience_s, pause_s=0.01)

        launch(ALIGNMENT, self.given, settings, run=run, task="7", connect=connect, poll_s=0.01, **options)

    def publish(self, cluster: FakeCluster) -> None:
        """The nodes publish an artifact where the TrainJob's command says."""
        command = cluster.job["spec"]["trainer"]["command"]
        out = command[command.index("--out") + 1]
        params = StepParams.model_validate({"run": {"seed": 5}})
        with publish(self.folder / "made", step="alignment", params=params, inputs={}) as workspace:
            (workspace.dir / "lora").mkdir()
            (workspace.dir / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
            workspace.write_metrics({"updates": 6.0})
        storage.upload_dir(self.folder / "made", out, replaces=replaceable(out, artifact_of("alignment")))

    def output(self) -> dict[str, Any]:
        """The ExecutorOutput."""
        written: dict[str, Any] = json.loads(self.given.output_file.read_text())
        return written


@pytest.fixture
def task(tmp_path: Path, cluster: FakeCluster, store: Store, monkeypatch: pytest.MonkeyPatch) -> Task:
    """An alignment task as Kubeflow describes it: inputs in minio://, the output in the same store."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    root = f"minio://{store.bucket}/v2/artifacts/onlinevpo"

    def artifact(uri: str, kind: str, path: Path | None = None) -> dict[str, Any]:
        entry = {"name": "1", "uri": uri, "type": {"schemaTitle": f"system.{kind}", "schemaVersion": "0.0.1"}}
        return {"artifacts": [{**entry, "customPath": str(path)} if path else entry]}

    message = {
        "inputs": {
            "parameterValues": {
                "run_params": json.dumps({"seed": SEED}), "step_params": json.dumps({"iterations": 2}),
            },
            "artifacts": {
                name: artifact(f"{root}/run-0/{name}/t/artifact", "Model") for name in ALIGNMENT.inputs
            },
        },
        "outputs": {
            "artifacts": {
                "artifact": artifact(
                    f"s3://{store.bucket}/v2/artifacts/onlinevpo/run-id/alignment/task-id/artifact",
                    "Model",
                    tmp_path / "outputs" / "artifact",
                ),
                "metrics": artifact(f"{root}/run-id/alignment/task-id/metrics", "Metrics", tmp_path / "m"),
            },
            "outputFile": str(tmp_path / "kfp" / "executor_output.json"),
        },
    }  # fmt: skip
    return Task(tmp_path, cluster, json.dumps(message))


def succeeds(task: Task, *before: Change) -> list[Change]:
    return [nothing, *before, together(task.publish, complete)]


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
