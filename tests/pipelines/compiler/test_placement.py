"""What a profile says of placement reaches the pods."""

from __future__ import annotations

from typing import Any

from pipelines.compiler.compile import documents_of
from pipelines.compiler.image_digests import Images
from pipelines.compiler.profile import Placement, Profile
from pipelines.lint.lint import findings
from pipelines.trainjob.settings import parse_settings
from tests.pipelines.compiler.documents import Documents, executors, placements, tasks


def test_a_profile_s_placement_reaches_the_pod(sections: dict[str, Any], images: Images) -> None:
    profile = Profile.model_validate(
        {
            "description": "a test",
            "queue": "gpus",
            "image_pull_policy": "Always",
            "image_pull_secrets": ["registry"],
            "secrets": [{"name": "s3", "env": {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}}],
            "config_maps": [
                {"name": "conf", "env": {"AWS_REGION": "region", "AWS_DEFAULT_REGION": "region"}}
            ],
            "steps": {
                "alignment": {
                    "cpu": "16",
                    "memory": "128Gi",
                    "gpus": 4,
                    "gpu_resource": "amd.com/gpu",
                    "node_selector": {"gpu": "mi300", "zone": "a"},
                    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                    "shared_memory": "32Gi",
                    "cache": "100Gi",
                    "timeout_minutes": 600,
                    "retries": 5,
                    "retry_delay_seconds": 7,
                }
            },
        }
    )
    documents = documents_of(sections, profile, images)
    resources = executors(documents)["exec-alignment"]["resources"]
    assert resources["accelerator"]["resourceType"] == "amd.com/gpu"
    assert resources["accelerator"]["resourceCount"] == "4"
    for kind in ("Request", "Limit"):
        assert resources[f"resourceCpu{kind}"] == "16"
        assert resources[f"resourceMemory{kind}"] == "128Gi"
    placed = placements(documents)["exec-alignment"]
    assert placed["nodeSelector"] == {"labels": {"gpu": "mi300", "zone": "a"}}
    assert placed["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert placed["podMetadata"] == {"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}
    assert placed["activeDeadlineSeconds"] == "36000"
    assert placed["imagePullPolicy"] == "Always"
    assert [secret["secretName"] for secret in placed["imagePullSecret"]] == ["registry"]
    assert placed["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
    assert {m["mountPath"]: (m.get("medium"), m["sizeLimit"]) for m in placed["emptyDirMounts"]} == {
        "/dev/shm": ("Memory", "32Gi"),
        "/cache": (None, "100Gi"),
        "/tmp": (None, "100Gi"),
    }
    retry = tasks(documents)["alignment"]["retryPolicy"]
    assert (retry["maxRetryCount"], retry["backoffDuration"], retry["backoffFactor"]) == (5, "7s", 2.0)
    assert float(retry["backoffMaxDuration"].rstrip("s")) > 6 * 36000


def test_every_task_has_what_every_task_needs(sections: dict[str, Any], images: Images) -> None:
    profile = Profile(description="a test", queue="gpus")
    documents = documents_of(sections, profile, images)
    assert set(placements(documents)) == set(executors(documents))
    for label, placed in placements(documents).items():
        from_secrets = {
            pair["envVar"]: (source["secretName"], pair["secretKey"])
            for source in placed["secretAsEnv"]
            for pair in source["keyToEnv"]
        }
        from_config_maps = {
            pair["envVar"]: (source["configMapName"], pair["configMapKey"])
            for source in placed["configMapAsEnv"]
            for pair in source["keyToEnv"]
        }
        assert from_secrets == {
            "AWS_ACCESS_KEY_ID": ("onlinevpo-s3", "access-key"),
            "AWS_SECRET_ACCESS_KEY": ("onlinevpo-s3", "secret-key"),
            "MLFLOW_TRACKING_USERNAME": ("onlinevpo-mlflow", "username"),
            "MLFLOW_TRACKING_PASSWORD": ("onlinevpo-mlflow", "password"),
        }
        assert from_config_maps == {
            "AWS_ENDPOINT_URL_S3": ("onlinevpo", "s3-endpoint"),
            "AWS_REGION": ("onlinevpo", "s3-region"),
            "MLFLOW_TRACKING_URI": ("onlinevpo", "mlflow-tracking-uri"),
            "ONLINEVPO_CHECKPOINTS": ("onlinevpo", "checkpoints"),
        }
        assert placed["fieldPathAsEnv"] == [
            {"name": "ONLINEVPO_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}
        ]
        assert placed["securityContext"]["runAsNonRoot"] is True
        assert ("podMetadata" in placed) is (label != "exec-finish")
    assert all("retryPolicy" in task for task in tasks(documents).values())


def test_variables_that_share_a_key_are_all_set(sections: dict[str, Any], images: Images) -> None:
    source = {"name": "conf", "env": {"AWS_REGION": "region", "AWS_DEFAULT_REGION": "region", "X": "x"}}
    profile = Profile.model_validate({"description": "a test", "config_maps": [source]})
    placed = placements(documents_of(sections, profile, images))["exec-reward"]
    pairs = [(p["envVar"], p["configMapKey"]) for s in placed["configMapAsEnv"] for p in s["keyToEnv"]]
    assert sorted(pairs) == [("AWS_DEFAULT_REGION", "region"), ("AWS_REGION", "region"), ("X", "x")]


def test_a_step_on_several_nodes_is_a_launcher_without_gpus(
    sections: dict[str, Any], images: Images, compiled_plain: Documents
) -> None:
    place = Placement(
        retries=20,
        nodes=4,
        gpus=8,
        cpu="64",
        memory="512Gi",
        timeout_minutes=600,
        queue_minutes=5000,
        node_selector={"a": "b"},
    )
    profile = Profile(description="a test", queue="gpus", steps={"alignment": place})
    documents = documents_of(sections, profile, images)
    container, placed = executors(documents)["exec-alignment"], placements(documents)["exec-alignment"]
    assert container["image"] == images.control
    assert findings(documents) == [], "the retry window, for one, has room for every attempt"
    assert "accelerator" not in container["resources"]
    assert container["resources"]["resourceMemoryLimit"] == "2Gi"
    assert "podMetadata" not in placed and "nodeSelector" not in placed
    assert int(placed["activeDeadlineSeconds"]) >= (5000 + 600) * 60
    job = parse_settings(container["args"][container["args"].index("--job") + 1])
    assert (job.image, job.nodes, job.gpus, job.cpu, job.memory) == (images.model, 4, 8, "64", "512Gi")
    assert (job.queue, job.timeout_minutes, job.queue_timeout_minutes) == ("gpus", 600, 5000)
    assert job.node_selector == {"a": "b"}
    assert job.secrets == profile.secrets and job.config_maps == profile.config_maps
    ends = [d[0]["components"]["comp-alignment"] for d in (documents, compiled_plain)]
    assert ends[0] == ends[1], "inputs and outputs stay the same"
