"""The object store of the local overlay, run as its manifest says: keys are asked for, files persist."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.manifests.conftest import until
from tests.manifests.pods import SECRETS, Pod, expanded
from tests.manifests.rendering import named, overlay

KEYS = SECRETS["onlinevpo-s3"]


def client(pod: Pod, access: str = KEYS["access-key"], secret: str = KEYS["secret-key"]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=pod.placed("http://object-store:9000"),
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe"])
def test_the_probe_says_yes_only_to_the_right_keys(store_pod: Pod, probe: str) -> None:
    assert store_pod.probe("object-store", probe).returncode == 0
    refused = store_pod.probe("object-store", probe, AWS_SECRET_ACCESS_KEY="another")
    assert refused.returncode != 0
    assert "SignatureDoesNotMatch" in refused.stderr


def test_no_keys_no_answer(store_pod: Pod) -> None:
    assert [b["Name"] for b in client(store_pod).list_buckets()["Buckets"]] == ["onlinevpo"]
    for access, secret in ((KEYS["access-key"], "wrong"), ("wrong", KEYS["secret-key"])):
        with pytest.raises(ClientError):
            client(store_pod, access, secret).list_buckets()


def test_the_bucket_outlives_its_last_object_and_objects_a_restart(store_pod: Pod) -> None:
    files = client(store_pod)
    files.put_object(Bucket="onlinevpo", Key="a/only", Body=b"1")
    files.delete_object(Bucket="onlinevpo", Key="a/only")
    assert "Contents" not in files.list_objects_v2(Bucket="onlinevpo")
    body = bytes(range(256)) * (80 * 1024)  # 20 MiB: more than one part
    (store_pod.folder / "large").write_bytes(body)
    files.upload_file(str(store_pod.folder / "large"), "onlinevpo", "b/large")

    again = Pod(store_pod.objects, store_pod.kind, store_pod.name, dict(store_pod.places), store_pod.folder)
    here = store_pod.placed("http://object-store:9000").rpartition(":")[2]
    other = str(int(here) - 1)
    again.places = {there: place.replace(here, other) for there, place in store_pod.places.items()}
    again.run("bucket")
    with again.running("object-store"):
        until(lambda: again.probe("object-store").returncode == 0, again)
        assert client(again).get_object(Bucket="onlinevpo", Key="b/large")["Body"].read() == body


def test_settings_name_one_store() -> None:
    """Kubeflow Pipelines and the steps mean the same store: a TrainJob's nodes read what Kubeflow wrote."""
    for name in ("local", "gpu-cluster"):
        settings = named(overlay(name), "ConfigMap", "onlinevpo")["data"]
        launcher = named(overlay(name), "ConfigMap", "kfp-launcher")["data"]
        store = yaml.safe_load(launcher["providers"])["s3"]["default"]
        assert store["endpoint"] == settings["s3-endpoint"]
        assert store["region"] == settings["s3-region"]
        assert store["disableSSL"] == settings["s3-endpoint"].startswith("http://")
        assert launcher["defaultPipelineRoot"].startswith("s3://onlinevpo/")
        reference = store["credentials"]["secretRef"]
        assert set(SECRETS[reference["secretName"]]) == {reference["accessKeyKey"], reference["secretKeyKey"]}


@pytest.mark.parametrize(
    ("text", "expected"), [("$(A),$(B)", "1,2"), ("$(C)", "$(C)"), ("$A", "$A"), ("x$(A)y", "x1y")]
)
def test_variables_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expanded(text, {"A": "1", "B": "2"}) == expected
