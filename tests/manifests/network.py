"""Whether traffic is allowed, by the rules of the NetworkPolicy API.

What no policy selects is open; what one selects is open to what any of those that do names.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

from tests.manifests.rendering import NAMESPACE, Object


@dataclass(frozen=True)
class End:
    """One end of a connection.

    Attributes:
        labels: of the pod; not looked at for an address outside of the cluster.
        namespace: of the pod.
        namespace_labels: of its namespace.
        address: of something that is no pod, "" for a pod.
    """

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    namespace_labels: dict[str, str] = field(default_factory=dict)
    address: str = ""

    @property
    def all_namespace_labels(self) -> dict[str, str]:
        return {"kubernetes.io/metadata.name": self.namespace, **self.namespace_labels}


def allowed(source: End, target: End, port: int, objects: list[Object], protocol: str = "TCP") -> bool:
    """Whether `source` may open a connection to `port` of `target`: both ends must let it."""
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    return _open("Egress", source, target, port, protocol, policies) and _open(
        "Ingress", target, source, port, protocol, policies
    )


def _open(way: str, here: End, there: End, port: int, protocol: str, policies: list[Object]) -> bool:
    if here.address:
        return True
    mine = [
        p["spec"]
        for p in policies
        if p["metadata"]["namespace"] == here.namespace
        and way in p["spec"]["policyTypes"]
        and _selects(p["spec"]["podSelector"], here.labels)
    ]
    if not mine:
        return True
    peers = "to" if way == "Egress" else "from"
    return any(
        (peers not in rule or any(_names(peer, there, here.namespace) for peer in rule[peers]))
        and ("ports" not in rule or any(_is_port(p, port, protocol) for p in rule["ports"]))
        for spec in mine
        for rule in spec.get(way.lower(), [])
    )


def _names(peer: dict[str, Any], end: End, own: str) -> bool:
    if "ipBlock" in peer:
        # What an address range means for pods is left to the network plug-in; we never rely on it.
        if not end.address:
            return False
        address = ipaddress.ip_address(end.address)
        excepted = [ipaddress.ip_network(n) for n in peer["ipBlock"].get("except", [])]
        return address in ipaddress.ip_network(peer["ipBlock"]["cidr"]) and not any(
            address in n for n in excepted
        )
    if end.address:
        return False
    if "namespaceSelector" in peer:
        if not _selects(peer["namespaceSelector"], end.all_namespace_labels):
            return False
    elif end.namespace != own:
        return False
    return _selects(peer.get("podSelector", {}), end.labels)


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        key, operator, values = rule["key"], rule["operator"], rule.get("values", [])
        held = {
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
            "In": labels.get(key) in values,
            "NotIn": key not in labels or labels[key] not in values,
        }
        if not held[operator]:
            return False
    return True


def _is_port(rule: dict[str, Any], port: int, protocol: str) -> bool:
    if rule.get("protocol", "TCP") != protocol:
        return False
    return "port" not in rule or rule["port"] <= port <= rule.get("endPort", rule["port"])
