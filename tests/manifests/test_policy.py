"""Every rule of `policy` holds for what is rendered, and finds its fault in an object broken on purpose."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest

from tests.manifests import policy
from tests.manifests.rendering import MANIFESTS, OVERLAYS, Object, overlay

EACH: tuple[Callable[[Object], list[str]], ...] = (
    policy.unconfined,
    policy.unlimited,
    policy.unpinned,
    policy.literal_secrets,
    policy.misplaced,
    policy.unprobed,
    policy.tokens,
    policy.rights_too_wide,
)


@pytest.mark.parametrize("rule", EACH, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", OVERLAYS)
def test_rendered_objects_follow_the_rules(name: str, rule: Callable[[Object], list[str]]) -> None:
    assert [fault for thing in overlay(name) for fault in rule(thing)] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_refers_to_what_is_not_there(name: str) -> None:
    assert policy.dangling(overlay(name)) == []


def good() -> Object:
    """A deployment that no rule objects to."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "server", "namespace": "onlinevpo"},
        "spec": {
            "template": {
                "metadata": {"labels": {"app": "server"}},
                "spec": {
                    "serviceAccountName": "server",
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 10001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "main",
                            "image": f"registry.example/server@sha256:{'a' * 64}",
                            "imagePullPolicy": "IfNotPresent",
                            "env": [
                                {"name": "PASSWORD_FILE", "value": "/run/secrets/password"},
                                {"name": "AUTH_KEY", "value": '"$(USER),$(PASSWORD)"'},
                                {
                                    "name": "PASSWORD",
                                    "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}},
                                },
                            ],
                            "args": ["--password=$(PASSWORD)"],
                            "ports": [{"name": "http", "containerPort": 80}],
                            "resources": {
                                "requests": {"cpu": "1", "memory": "1Gi"},
                                "limits": {"cpu": "1", "memory": "1Gi"},
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "startupProbe": {},
                            "readinessProbe": {},
                            "livenessProbe": {},
                        }
                    ],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            }
        },
    }


def pod(thing: Object) -> Object:
    spec: Object = thing["spec"]["template"]["spec"]
    return spec


def main(thing: Object) -> Object:
    container: Object = pod(thing)["containers"][0]
    return container


def _set(target: Callable[[Object], Object], key: str, value: object) -> Callable[[Object], None]:
    def change(thing: Object) -> None:
        target(thing)[key] = value

    return change


def _security(key: str, value: object) -> Callable[[Object], None]:
    return lambda thing: main(thing)["securityContext"].update({key: value})


def _without(target: Callable[[Object], Object], key: str) -> Callable[[Object], None]:
    def change(thing: Object) -> None:
        del target(thing)[key]

    return change


BROKEN: list[tuple[Callable[[Object], list[str]], Callable[[Object], None], str]] = [
    (policy.unconfined, _security("runAsUser", 0), "root"),
    (policy.unconfined, _security("runAsNonRoot", False), "root"),
    (policy.unconfined, _without(pod, "securityContext"), "root"),
    (policy.unconfined, _security("privileged", True), "privileges"),
    (policy.unconfined, _security("allowPrivilegeEscalation", True), "privileges"),
    (policy.unconfined, _security("capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "capabilities"),
    (policy.unconfined, _security("seccompProfile", {"type": "Unconfined"}), "seccomp"),
    (policy.unconfined, _security("readOnlyRootFilesystem", False), "write its root"),
    (policy.unconfined, _set(pod, "hostNetwork", True), "hostNetwork"),
    (policy.unconfined, _set(pod, "volumes", [{"name": "disk", "hostPath": {"path": "/"}}]), "hostPath"),
    (policy.unconfined, _set(pod, "initContainers", [{"name": "first"}]), "first may gain"),
    (policy.unlimited, _without(main, "resources"), "requests for cpu"),
    (policy.unlimited, lambda thing: main(thing)["resources"]["limits"].pop("memory"), "limits for memory"),
    (policy.unpinned, _set(main, "image", "registry.example/server:latest"), "not a digest"),
    (policy.unpinned, _set(main, "image", "server"), "not a digest"),
    (policy.unpinned, _set(main, "imagePullPolicy", "Always"), "pull policy"),
    (policy.literal_secrets, _set(main, "env", [{"name": "PGPASSWORD", "value": "x"}]), "PGPASSWORD"),
    (
        policy.literal_secrets,
        _set(main, "env", [{"name": "AWS_SECRET_ACCESS_KEY", "value": "k$(B)"}]),
        "ACCESS_KEY",
    ),
    (policy.literal_secrets, _set(main, "args", ["--admin-password=hunter2"]), "hunter2"),
    (
        policy.literal_secrets,
        _set(main, "env", [{"name": "DB", "value": "postgresql://u:p@h/d"}]),
        "in a URI",
    ),
    (policy.literal_secrets, lambda thing: thing.update(kind="Secret"), "a secret in the tree"),
    (
        policy.literal_secrets,
        lambda thing: thing.update(kind="ConfigMap", data={"api-token": "x"}, spec={}),
        "api-token",
    ),
    (policy.misplaced, lambda thing: thing["metadata"].update(namespace="default"), "default"),
    (policy.misplaced, lambda thing: thing.update(kind="ClusterQueue"), "not None"),
    (policy.unprobed, _without(main, "readinessProbe"), "readinessProbe"),
    (policy.tokens, _without(pod, "automountServiceAccountToken"), "token"),
    (policy.tokens, _set(pod, "serviceAccountName", "default"), "default service account"),
    (
        policy.rights_too_wide,
        lambda thing: thing.update(
            kind="Role", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}]
        ),
        "star",
    ),
    (
        policy.rights_too_wide,
        lambda thing: thing.update(
            kind="Role", rules=[{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
        ),
        "every secret",
    ),
    (
        policy.rights_too_wide,
        lambda thing: thing.update(
            kind="Role", rules=[{"apiGroups": [""], "resources": ["roles"], "verbs": ["bind"]}]
        ),
        "mightier",
    ),
]


@pytest.mark.parametrize("rule", EACH, ids=lambda rule: rule.__name__)
def test_a_good_object_passes(rule: Callable[[Object], list[str]]) -> None:
    assert rule(good()) == []


@pytest.mark.parametrize(("rule", "spoil", "said"), BROKEN)
def test_a_broken_object_is_found(
    rule: Callable[[Object], list[str]], spoil: Callable[[Object], None], said: str
) -> None:
    thing = good()
    spoil(thing)
    assert said in "\n".join(rule(thing))


def _service(**changes: object) -> Object:
    port = {"name": "http", "port": 80, "targetPort": "http"}
    spec = {"selector": {"app": "server"}, "ports": [{**port, **changes}]}
    return {"kind": "Service", "metadata": {"name": "server"}, "spec": spec}


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ([_service()], ""),
        ([_service(name="")], "has no name"),
        ([_service(targetPort="other")], "none of its pods'"),
        ([{**_service(), "spec": {"selector": {"app": "other"}, "ports": []}}], "selects no pod"),
    ],
)
def test_dangling_services_are_found(extra: list[Object], said: str) -> None:
    account = {"kind": "ServiceAccount", "metadata": {"name": "server"}}
    faults = policy.dangling([copy.deepcopy(good()), account, *extra])
    assert said in "\n".join(faults)
    assert bool(faults) == bool(said)


def test_dangling_references_are_found() -> None:
    thing = good()
    reference = {"configMapKeyRef": {"name": "settings", "key": "uri"}}
    main(thing)["env"].append({"name": "URI", "valueFrom": reference})
    settings = {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"url": ""}}
    assert policy.dangling([thing, settings]) == [
        "Deployment/server: service account server is not there",
        "Deployment/server: config map settings has no uri",
    ]


def test_no_registry_secret_or_tag_is_written_in_the_tree() -> None:
    """Of the files themselves, also those that no overlay renders."""
    text = {p: p.read_text() for p in MANIFESTS.rglob("*") if p.is_file() and p.suffix != ".md"}
    assert len(text) > 20
    hosts = re.compile(r"docker\.io|ghcr\.io|quay\.io|gcr\.io|nvcr\.io|registry\.k8s\.io|registry-1\.")
    assert [str(p) for p, content in text.items() if hosts.search(content)] == []
    assert [str(p) for p, content in text.items() if re.search(r":latest\b", content)] == []
    by_name = [p for p, content in text.items() if re.search(r"(registry\.example|sha256:)", content)]
    assert by_name == [MANIFESTS / "images" / "kustomization.yaml"]
    assert [
        str(p) for p, content in text.items() if re.search(r"^kind: Secret$", content, re.MULTILINE)
    ] == []
