"""Who may do what: all that a run needs, and nothing that it does not."""

from __future__ import annotations

import pytest

from tests.manifests.rendering import OVERLAYS, Object, overlay

#: (API group, resource, verbs, name): what the code of each asks for.
NEEDED = [
    # Argo Workflows 4.0's executor
    ("argoproj.io", "workflowtaskresults", {"create", "patch"}, "any"),
    # Kubeflow Pipelines 2.17's driver and launcher
    ("argoproj.io", "workflows", {"get"}, "any"),
    ("", "pods", {"get"}, "any"),
    ("", "configmaps", {"get"}, "kfp-launcher"),
    ("", "secrets", {"get"}, "onlinevpo-s3"),
    # pipelines.trainjob
    (
        "trainer.kubeflow.org",
        "trainjobs",
        {"create", "get", "list", "watch", "patch", "delete"},
        "any",
    ),
    ("trainer.kubeflow.org", "trainingruntimes", {"get", "list"}, "any"),
    ("trainer.kubeflow.org", "clustertrainingruntimes", {"get", "list"}, "any"),
    ("", "pods", {"get", "list", "watch"}, "any"),
    ("", "pods/log", {"get", "list", "watch"}, "any"),
    ("", "events", {"get", "list", "watch"}, "any"),
]
REFUSED = [
    ("", "secrets", "get", "onlinevpo-mlflow-server"),
    ("", "secrets", "get", "onlinevpo-postgres"),
    ("", "secrets", "list", "any"),
    ("", "configmaps", "get", "other"),
    ("", "pods", "create", "any"),
    ("", "pods", "delete", "any"),
    ("", "pods/exec", "create", "any"),
    ("apps", "deployments", "get", "any"),
    ("batch", "jobs", "create", "any"),
    ("argoproj.io", "workflows", "patch", "any"),
    ("rbac.authorization.k8s.io", "roles", "get", "any"),
]


def rules_of(account: str, objects: list[Object]) -> list[Object]:
    """The rules of every role that a service account of ours is bound to."""
    found = []
    for binding in objects:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        subject = {"kind": "ServiceAccount", "name": account, "namespace": "onlinevpo"}
        if subject in binding["subjects"]:
            reference = (binding["roleRef"]["kind"], binding["roleRef"]["name"])
            (role,) = [o for o in objects if (o["kind"], o["metadata"]["name"]) == reference]
            found += role["rules"]
    return found


def may(rules: list[Object], group: str, resource: str, verb: str, name: str) -> bool:
    return any(
        group in rule["apiGroups"]
        and resource in rule["resources"]
        and verb in rule["verbs"]
        and (not rule.get("resourceNames") or name in rule["resourceNames"])
        for rule in rules
    )


@pytest.mark.parametrize("overlay_name", OVERLAYS)
def test_a_run_may_do_what_it_needs(overlay_name: str) -> None:
    rules = rules_of("pipeline-runner", overlay(overlay_name))
    for group, resource, verbs, name in NEEDED:
        assert {v for v in verbs if not may(rules, group, resource, v, name)} == set(), resource


@pytest.mark.parametrize("overlay_name", OVERLAYS)
def test_a_run_may_do_no_more(overlay_name: str) -> None:
    rules = rules_of("pipeline-runner", overlay(overlay_name))
    assert [what for what in REFUSED if may(rules, *what)] == []
    needed = {(group, resource) for group, resource, _, _ in NEEDED}
    granted = {
        (group, resource) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]
    }
    assert granted == needed


@pytest.mark.parametrize("overlay_name", OVERLAYS)
def test_nobody_else_may_do_anything(overlay_name: str) -> None:
    objects = overlay(overlay_name)
    subjects = {
        (subject["kind"], subject["name"])
        for o in objects
        for subject in o.get("subjects", [])
        if o["kind"] in ("RoleBinding", "ClusterRoleBinding")
    }
    assert subjects == {("ServiceAccount", "pipeline-runner")}
