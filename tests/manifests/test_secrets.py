"""secrets/create makes what the manifests and the profiles refer to, and never overwrites."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.compiler.profile import PROFILES, Profile
from tests.manifests.pods import SECRETS
from tests.manifests.policy import references
from tests.manifests.rendering import (
    KUBECTL,
    MANIFESTS,
    OVERLAYS,
    named,
    needs_kubectl,
    overlay,
    pod_templates,
)

SCRIPT = MANIFESTS / "secrets" / "create"
#: Read by Kubeflow Pipelines' own pods, which no overlay of ours renders.
KUBEFLOW = {("mlpipeline-minio-artifact", "accesskey"), ("mlpipeline-minio-artifact", "secretkey")}


def create(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    settings = {"PATH": os.environ["PATH"], "KUBECONFIG": "/dev/null", "KUBECTL": str(KUBECTL), **environment}
    return subprocess.run([str(SCRIPT), *words], env=settings, capture_output=True, text=True)


def made(**environment: str) -> dict[tuple[str, str], str]:
    """What it would make: value by (secret, key)."""
    done = create("--dry-run", **environment)
    assert done.returncode == 0, done.stderr
    objects = [o for o in yaml.safe_load_all(done.stdout) if o]
    assert {(o["kind"], o["metadata"]["namespace"]) for o in objects} == {("Secret", "onlinevpo")}
    return {
        (o["metadata"]["name"], key): base64.b64decode(value).decode()
        for o in objects
        for key, value in o["data"].items()
    }


@needs_kubectl
def test_every_key_that_is_referred_to_is_made_and_no_other() -> None:
    wanted = {
        (name, key)
        for overlay_name in OVERLAYS
        for thing in overlay(overlay_name)
        for template in pod_templates(thing)
        for kind, name, key in references(template)
        if kind == "secret"
    }
    assert set(made()) == wanted | KUBEFLOW  # type: ignore[operator]
    assert {(name, key) for name, keys in SECRETS.items() for key in keys} == wanted


@needs_kubectl
@pytest.mark.parametrize("overlay_name", OVERLAYS)
def test_every_key_of_the_profiles_is_there(overlay_name: str) -> None:
    default = Profile(description="all defaults")
    profiles = [default, *(Profile(**yaml.safe_load(p.read_text())) for p in PROFILES.glob("*.yaml"))]
    secrets = {(s.name, key) for p in profiles for s in p.secrets for key in s.env.values()}
    assert secrets <= set(made())
    objects = overlay(overlay_name)
    for source in [c for p in profiles for c in p.config_maps]:
        assert set(source.env.values()) <= set(named(objects, "ConfigMap", source.name)["data"])
    if overlay_name == "gpu-cluster":
        assert {p.queue for p in profiles} - {None} <= {
            o["metadata"]["name"] for o in objects if o["kind"] == "LocalQueue"
        }
    runtimes = {o["metadata"]["name"] for o in objects if o["kind"] == "ClusterTrainingRuntime"}
    assert {place.runtime for p in profiles for place in p.steps.values()} <= runtimes


@needs_kubectl
def test_passwords_are_random_and_long() -> None:
    first, second = made(), made()
    random = {where for where in first if where[1] not in ("username", "accesskey")}
    assert all(len(first[where]) == 48 and first[where] != second[where] for where in random)
    assert len({first[where] for where in random}) == len(random)


@needs_kubectl
def test_given_keys_are_used_without_their_line_end(tmp_path: Path) -> None:
    (tmp_path / "access").write_text("AKIAEXAMPLE\n")
    (tmp_path / "secret").write_text("abc+/=\r\n")
    files = {"S3_ACCESS_KEY_FILE": str(tmp_path / "access"), "S3_SECRET_KEY_FILE": str(tmp_path / "secret")}
    found = made(**files)
    assert found[("onlinevpo-s3", "access-key")] == "AKIAEXAMPLE"
    assert found[("onlinevpo-s3", "secret-key")] == "abc+/="
    (tmp_path / "access").write_text("\n")
    assert create("--dry-run", **files).returncode == 2
    del files["S3_SECRET_KEY_FILE"]
    assert create("--dry-run", **files).returncode != 0


def test_an_unknown_option_prints_how_to_use_it() -> None:
    done = create("--force")
    assert done.returncode == 2
    assert "secrets/create --dry-run" in done.stderr


def test_what_exists_is_left_as_it_is(tmp_path: Path) -> None:
    """Against a kubectl that knows one secret and writes down what it is asked to create."""
    stand_in = tmp_path / "kubectl"
    stand_in.write_text(
        '#!/bin/sh\ncase "$*" in\n*"get secret onlinevpo-s3") exit 0 ;;\n*get*) exit 1 ;;\n'
        f'*) echo "$*" >> {tmp_path}/calls ;;\nesac\n'
    )
    stand_in.chmod(0o755)
    done = create(KUBECTL=str(stand_in))
    assert done.returncode == 0, done.stderr
    assert "onlinevpo-s3: is there already" in done.stdout
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [line.split()[5] for line in calls] == [
        "onlinevpo-postgres",
        "onlinevpo-mlflow",
        "onlinevpo-mlflow-server",
        "mlpipeline-minio-artifact",
    ]
    for line in calls:  # files named, never values; and nothing left behind
        sources = [word.partition("=")[2].partition("=")[2] for word in line.split() if "--from-file" in word]
        assert sources
        assert not [source for source in sources if Path(source).exists()]


def config(folder: Path, content: object) -> Path:
    file = folder / "config.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


LOGIN = base64.b64encode(b"ada:secret").decode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"auths": {"registry.example": {}}, "credsStore": "desktop"}, "kept by desktop"),
        ({"auths": {}, "credHelpers": {"gcr.io": "gcloud"}}, "kept by gcloud"),
        ({"auths": {"registry.example": {"auth": ""}}}, "holds no login"),
        ({}, "holds no login"),
        ([], "no config.json of docker or podman"),
        ({"auths": ["registry.example"]}, "no config.json of docker or podman"),
        ("auths: {}", "no config.json of docker or podman"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_registry_file_without_a_login_makes_nothing(tmp_path: Path, content: object, said: str) -> None:
    file = tmp_path / "config.json" if content is None else config(tmp_path, content)
    calls = tmp_path / "calls"
    stand_in = tmp_path / "kubectl"
    stand_in.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n')
    stand_in.chmod(0o755)
    done = create(KUBECTL=str(stand_in), REGISTRY_AUTH_FILE=str(file))
    assert done.returncode == 2 and not calls.exists()
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{file}: ") and said in line
    if content is not None:
        assert "podman login --authfile FILE REGISTRY" in line


@needs_kubectl
@pytest.mark.parametrize(
    "entry", [{"auth": LOGIN}, {"username": "ada", "password": "secret"}], ids=["auth", "username"]
)
def test_a_registrys_login_is_part_of_what_is_made_and_printed(tmp_path: Path, entry: dict[str, str]) -> None:
    content = {"auths": {"registry.example": entry, "other.example": {}}, "credsStore": "desktop"}
    file = config(tmp_path, content)
    done = create("--dry-run", REGISTRY_AUTH_FILE=str(file))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "registries: registry.example\n"
    secret = next(
        o for o in yaml.safe_load_all(done.stdout) if o and o["metadata"]["name"] == "onlinevpo-registry"
    )
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert base64.b64decode(secret["data"][".dockerconfigjson"]) == file.read_bytes()


@needs_kubectl
@pytest.mark.parametrize("overlay_name", OVERLAYS)
def test_every_pod_can_pull_from_a_private_registry(overlay_name: str) -> None:
    """A pod pulls with its own secrets, or with those of its service account."""
    objects = overlay(overlay_name)
    accounts = {o["metadata"]["name"]: o for o in objects if o["kind"] == "ServiceAccount"}
    for thing in objects:
        for template in pod_templates(thing):
            account = accounts[template["spec"]["serviceAccountName"]]
            assert account["imagePullSecrets"] == [{"name": "onlinevpo-registry"}]
    assert all(a["imagePullSecrets"] == [{"name": "onlinevpo-registry"}] for a in accounts.values())
