"""What must be able to speak can, what must not cannot; and that the evaluator knows the API's rules."""

from __future__ import annotations

from typing import Any

import pytest

from tests.manifests.network import End, allowed
from tests.manifests.rendering import OVERLAYS, Object, overlay

KUBEFLOW = {"application-crd-id": "kubeflow-pipelines"}
#: Labels as Argo Workflows, JobSet and Kubeflow Pipelines 2.17 set them.
STEP = End({"workflows.argoproj.io/workflow": "run-1", "pipeline/runid": "1"})
NODE = End({"jobset.sigs.k8s.io/jobset-name": "alignment-1", "jobset.sigs.k8s.io/replicatedjob-name": "node"})
MLFLOW = End({"app.kubernetes.io/name": "mlflow"})
POSTGRES = End({"app.kubernetes.io/name": "postgres"})
STORE = End({"app.kubernetes.io/name": "object-store"})
API = End({"app": "ml-pipeline", **KUBEFLOW})
UI = End({"app": "ml-pipeline-ui", **KUBEFLOW})
LINEAGE = End({"component": "metadata-grpc-server", **KUBEFLOW})
MYSQL = End({"app": "mysql", **KUBEFLOW})
LOGS = End({"app": "seaweedfs", **KUBEFLOW})
CACHE = End({"app": "cache-server", **KUBEFLOW})
DNS = End({"k8s-app": "kube-dns"}, namespace="kube-system")
STRANGER = End({"app": "curl"})
ELSEWHERE = End({"workflows.argoproj.io/workflow": "x"}, namespace="other")
GATEWAY = End(namespace="gateway", namespace_labels={"onlinevpo/gateway": "true"})
KUBERNETES = End(address="10.96.0.1")
OUTSIDE = End(address="203.0.113.7")
METADATA = End(address="169.254.169.254")

NEEDED = [
    *[(end, DNS, 53) for end in (STEP, NODE, MLFLOW, API)],
    (STEP, KUBERNETES, 443),
    (STEP, KUBERNETES, 6443),
    (STEP, API, 8887),
    (STEP, API, 8888),
    (STEP, LINEAGE, 8080),
    (STEP, LOGS, 8333),
    (STEP, MLFLOW, 5000),
    (NODE, MLFLOW, 5000),
    (NODE, NODE, 29500),
    (NODE, NODE, 41234),
    (MLFLOW, POSTGRES, 5432),
    (API, MYSQL, 3306),
    (API, LOGS, 8333),
    (UI, API, 8888),
    (API, KUBERNETES, 443),
    (OUTSIDE, CACHE, 8443),
]
FORBIDDEN = [
    *[(end, POSTGRES, 5432) for end in (STEP, NODE, API, UI, STRANGER, ELSEWHERE, GATEWAY, STORE)],
    *[(STRANGER, end, port) for end, port in ((MLFLOW, 5000), (STORE, 9000), (API, 8888), (MYSQL, 3306))],
    *[(ELSEWHERE, end, port) for end, port in ((MLFLOW, 5000), (STORE, 9000), (API, 8887), (NODE, 29500))],
    *[(end, METADATA, port) for end in (STEP, NODE, MLFLOW, API) for port in (80, 443)],
    *[(end, OUTSIDE, 80) for end in (STEP, NODE, MLFLOW, API)],
    *[(POSTGRES, end, port) for end, port in ((OUTSIDE, 443), (KUBERNETES, 443), (MLFLOW, 5000))],
    (OUTSIDE, MLFLOW, 5000),
    (STEP, MYSQL, 3306),
    (STEP, MLFLOW, 22),
    (STEP, NODE, 29500),
    (STEP, STEP, 8080),
    (NODE, API, 8888),
    (NODE, KUBERNETES, 6443),
    (MLFLOW, KUBERNETES, 6443),
]


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_must_speak_can(name: str) -> None:
    objects = overlay(name)
    for source, target, port in NEEDED:
        protocol = "UDP" if port == 53 else "TCP"
        assert allowed(source, target, port, objects, protocol), (source, target, port)


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_must_not_speak_cannot(name: str) -> None:
    objects = overlay(name)
    for source, target, port in FORBIDDEN:
        assert not allowed(source, target, port, objects), (source, target, port)


def test_artifacts_are_reached_where_they_are_kept() -> None:
    writers = (STEP, NODE, MLFLOW, API, UI)
    inside, outside = overlay("local"), overlay("gpu-cluster")
    for end in writers:
        assert allowed(end, STORE, 9000, inside)
        assert allowed(end, OUTSIDE, 443, outside)
    for end in (NODE, MLFLOW):
        assert not allowed(end, OUTSIDE, 443, inside)


def test_a_gateway_reaches_the_pages_only() -> None:
    objects = overlay("gpu-cluster")
    assert allowed(GATEWAY, MLFLOW, 5000, objects)
    assert allowed(GATEWAY, UI, 3000, objects)
    for end, port in ((API, 8888), (POSTGRES, 5432), (MYSQL, 3306)):
        assert not allowed(GATEWAY, end, port, objects)
    assert not allowed(End(namespace="gateway"), MLFLOW, 5000, objects)


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_is_open_by_default(name: str) -> None:
    """A pod that no other policy knows may ask for names and fetch artifacts, and do no more."""
    objects = overlay(name)
    denial = [
        o
        for o in objects
        if o["kind"] == "NetworkPolicy"
        and o["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ]
    assert [o["metadata"]["name"] for o in denial] == ["nothing"]
    for end in (STEP, NODE, MLFLOW, POSTGRES, API, GATEWAY, OUTSIDE):
        assert not allowed(end, STRANGER, 80, objects)
        assert not allowed(STRANGER, end, 80, objects) or end is GATEWAY


def _policy(spec: dict[str, Any]) -> Object:
    return {"kind": "NetworkPolicy", "metadata": {"namespace": "onlinevpo"}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, True),
        ({"podSelector": {}, "policyTypes": ["Ingress"]}, False),
        ({"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Ingress"]}, True),
        ({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}, True),
        ({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 80}]}]}, True),
        ({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 81}]}]}, False),
        (
            {
                "podSelector": {},
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"port": 80, "protocol": "UDP"}]}],
            },
            False,
        ),
        (
            {
                "podSelector": {},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}],
            },
            True,
        ),
        (
            {
                "podSelector": {},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}],
            },
            False,
        ),
        (
            {
                "podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["b"]}]},
                "policyTypes": ["Ingress"],
            },
            True,
        ),
    ],
)
def test_the_evaluator_knows_the_rules(spec: dict[str, Any] | None, expected: bool) -> None:
    policies = [] if spec is None else [_policy(spec)]
    assert allowed(End({"app": "a"}), End({"app": "b"}), 80, policies) is expected
