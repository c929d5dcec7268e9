"""The TrainJob object, checked against the API's own models and against what its controllers append."""

from __future__ import annotations

from typing import Any

import pytest

from components.runtime.errors import InputError
from pipelines.steps import step
from pipelines.trainjob.manifest import Places, build, job_name, s3_uri
from pipelines.trainjob.settings import EnvironmentSource, Toleration, TrainJobSettings
from tests.pipelines.trainjob.fake_cluster import check_train_job

ALIGNMENT = step("alignment")
PLACES = Places(
    "s3://bucket/params.json",
    {"corpus": "s3://bucket/c", "generator": "s3://bucket/g", "reward": "s3://bucket/r"},
    "s3://bucket/out",
)


def made(run: str | None = "run 1", env: dict[str, str] | None = None, **settings: Any) -> dict[str, Any]:
    given = TrainJobSettings(**{"image": "registry.example/x@sha256:" + "a" * 64, "nodes": 2, **settings})
    job = build("alignment-1", ALIGNMENT, run, PLACES, given, env or {})
    check_train_job(job)
    return job


def pod(job: dict[str, Any]) -> dict[str, Any]:
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template: dict[str, Any] = node["template"]["spec"]["template"]
    return template


def variables(job: dict[str, Any]) -> dict[str, Any]:
    return {entry.pop("name"): entry for entry in job["spec"]["trainer"]["env"]}


def test_command() -> None:
    trainer = made(nodes=3, gpus=8)["spec"]["trainer"]
    command = trainer["command"]
    assert command[:3] == ["python", "-m", "pipelines.trainjob.torchrun"]
    assert " ".join(command).endswith(
        "-m components.alignment run --params s3://bucket/params.json --corpus s3://bucket/c "
        "--generator s3://bucket/g --reward s3://bucket/r --out s3://bucket/out"
    )
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 8)
    # Left to itself the trainer would start a process per core.
    assert made(nodes=2, cpu="16")["spec"]["trainer"]["numProcPerNode"] == 1


def test_resources() -> None:
    resources = made(gpus=4, gpu_resource="amd.com/gpu", cpu="500m", memory="64Gi")["spec"]["trainer"][
        "resourcesPerNode"
    ]
    assert resources["requests"] == {"cpu": "500m", "memory": "64Gi", "amd.com/gpu": "4"}
    assert resources["limits"] == resources["requests"]
    assert set(made()["spec"]["trainer"]["resourcesPerNode"]["limits"]) == {"cpu", "memory"}


def test_environment() -> None:
    job = made(
        secrets=(EnvironmentSource(name="onlinevpo-s3", env={"AWS_SECRET_ACCESS_KEY": "secret-key"}),),
        config_maps=(EnvironmentSource(name="onlinevpo", env={"MLFLOW_TRACKING_URI": "mlflow-uri"}),),
        env={"NCCL_DEBUG": "WARN"},
    )  # fmt: skip
    found = variables(job)
    assert found["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"] == {
        "name": "onlinevpo-s3", "key": "secret-key",
    }  # fmt: skip
    assert found["MLFLOW_TRACKING_URI"]["valueFrom"]["configMapKeyRef"]["key"] == "mlflow-uri"
    assert found["NCCL_DEBUG"]["value"] == "WARN"
    assert found["ONLINEVPO_RUN"]["value"] == "run 1"
    assert list(found) == sorted(found)
    assert "ONLINEVPO_RUN" not in variables(made(run=None))
    with pytest.raises(InputError, match="PET_NNODES"):
        made(env={"PET_NNODES": "7"})


def test_pod() -> None:
    template = pod(
        made(
            shared_memory="16Gi",
            node_selector={"gpu": "h100"},
            tolerations=(Toleration(key="gpu", operator="Equal", value="yes", toleration_seconds=60),),
        )
    )
    spec = template["spec"]
    volumes = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"]}
    (container,) = spec["containers"]
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounted["/dev/shm"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert set(mounted) == {"/dev/shm", "/cache", "/tmp"}
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "yes", "tolerationSeconds": 60}
    ]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert template["metadata"]["labels"]["onlinevpo/step"] == "alignment"


def test_queue() -> None:
    queued, at_once = made(queue="training"), made()
    assert queued["spec"]["suspend"] is True
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert "suspend" not in at_once["spec"]
    assert "kueue.x-k8s.io/queue-name" not in at_once["metadata"]["labels"]
    # The trainer counts from creation: its deadline must not be the one for running.
    assert at_once["spec"]["activeDeadlineSeconds"] >= 120 * 60 + 24 * 3600


def test_run_in_labels() -> None:
    about = made(run="Größe 3 / second try: " + "x" * 80)["metadata"]
    assert about["annotations"]["onlinevpo/run"].startswith("Größe 3 / second try")
    assert about["labels"]["onlinevpo/run"].startswith("Gr-e-3-second-try-xxx")


@pytest.mark.parametrize("run", [None, "", "2026-11-23", "ONLINE_vpo/ä" * 20, "-", "a" * 200])
@pytest.mark.parametrize("nodes", [2, 9999])
def test_name_is_valid(run: str | None, nodes: int) -> None:
    job = made(nodes=nodes)
    job["metadata"]["name"] = job_name("alignment", run, "77", "s3://b/out")
    check_train_job(job)


def test_name_is_of_the_task_alone() -> None:
    first = job_name("alignment", "r", "1", "s3://b/1")
    assert first == job_name("alignment", "r", "1", "s3://b/1")
    others = {
        job_name("reward", "r", "1", "s3://b/1"), job_name("alignment", "q", "1", "s3://b/1"),
        job_name("alignment", "r", "2", "s3://b/1"), job_name("alignment", "r", "1", "s3://b/2"),
        job_name("alignment", "r" * 90, "1", "s3://b/1"), job_name("alignment", "r" * 91, "1", "s3://b/1"),
    }  # fmt: skip
    assert len(others | {first}) == 7


def test_the_check_itself() -> None:
    """An object with a field that Trainer 2.3 removed must not pass."""
    job = made()
    job["spec"]["podTemplateOverrides"] = []
    with pytest.raises(ValueError, match=r"spec\.podTemplateOverrides"):
        check_train_job(job)
    job = made()
    pod(job)["spec"]["containers"][0]["imagePullPolicy"] = "Always"
    with pytest.raises(ValueError, match="imagePullPolicy"):
        check_train_job(job)


def test_places() -> None:
    assert s3_uri("s3://bucket/a/b", "input") == "s3://bucket/a/b"
    assert s3_uri("minio://bucket/a/b/", "input") == "s3://bucket/a/b"
    assert s3_uri("s3://bucket/a?region=x", "input") == "s3://bucket/a"
    for bad in ("/local/path", "gs://bucket/a", "", "s3://"):
        with pytest.raises(InputError, match=r"input corpus.*nodes"):
            s3_uri(bad, "input corpus")
