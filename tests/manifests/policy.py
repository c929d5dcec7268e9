"""The house rules that no schema knows. Each takes rendered objects and gives the faults it finds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.manifests.rendering import NAMESPACE, Object, containers, pod_templates, title

CLUSTER_WIDE = {
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterTrainingRuntime",
    "ClusterQueue",
    "ResourceFlavor",
}
#: Volumes of a pod that the pod security level `restricted` allows.
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
DIGEST = re.compile(r"^[^@\s]+@sha256:[0-9a-f]{64}$")
_SECRET_NAME = re.compile(r"password|secret|token|(^|_|-)key$|credential", re.IGNORECASE)
#: A value that is none itself: the path of a file, or nothing but references to other variables.
_FILE_NAME = re.compile(r"_FILE$|_PATH$")
_REFERENCE = re.compile(r"\$\([A-Z0-9_]+\)")


def unconfined(thing: Object) -> list[str]:
    """Pods that the level `restricted` would refuse, or with a root file system that can be written."""
    faults = []
    for template in pod_templates(thing):
        spec = template["spec"]
        pod = spec.get("securityContext", {})
        for flag in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(flag):
                faults.append(f"{title(thing)}: {flag}")
        for volume in spec.get("volumes", []):
            kinds = set(volume) - {"name"}
            if not kinds <= VOLUMES:
                faults.append(f"{title(thing)}: volume {volume['name']} of kind {', '.join(kinds)}")
        for container in containers(template):
            own = container.get("securityContext", {})
            both = {**pod, **own}
            wrong = {
                "may run as root": both.get("runAsNonRoot") is not True or not both.get("runAsUser"),
                "may gain privileges": own.get("allowPrivilegeEscalation") is not False
                or own.get("privileged"),
                "keeps capabilities": own.get("capabilities", {}) != {"drop": ["ALL"]},
                "has no seccomp profile": both.get("seccompProfile", {}).get("type") != "RuntimeDefault",
                "can write its root": own.get("readOnlyRootFilesystem") is not True,
            }
            faults += [
                f"{title(thing)}: {container['name']} {what}" for what, is_so in wrong.items() if is_so
            ]
    return faults


def unlimited(thing: Object) -> list[str]:
    """Containers that do not say how much they need, or how much they may take at most."""
    return [
        f"{title(thing)}: {container['name']} has no {kind} for {resource}"
        for template in pod_templates(thing)
        for container in containers(template)
        for kind in ("requests", "limits")
        for resource in ("cpu", "memory")
        if not container.get("resources", {}).get(kind, {}).get(resource)
    ]


def unpinned(thing: Object) -> list[str]:
    """Images not named by digest, and pull policies that would ask for them again and again."""
    faults = []
    for template in pod_templates(thing):
        for container in containers(template):
            if not DIGEST.match(container.get("image", "")):
                faults.append(
                    f"{title(thing)}: {container['name']} runs {container.get('image')}, not a digest"
                )
            if container.get("imagePullPolicy") != "IfNotPresent":
                faults.append(f"{title(thing)}: {container['name']} has no pull policy IfNotPresent")
    return faults


def literal_secrets(thing: Object) -> list[str]:
    """Secrets written out: objects of kind Secret, environment values and config keys called like one."""
    if thing["kind"] == "Secret":
        return [f"{title(thing)}: a secret in the tree"]
    faults = []
    for template in pod_templates(thing):
        for container in containers(template):
            faults += [
                f"{title(thing)}: {container['name']} has {entry['name']} written out"
                for entry in container.get("env", [])
                if _SECRET_NAME.search(entry["name"])
                and not _FILE_NAME.search(entry["name"])
                and _is_literal(entry.get("value", ""))
            ]
            words = [*container.get("command", []), *container.get("args", [])]
            faults += [
                f"{title(thing)}: {container['name']} is given {w}" for w in words if _assigns_secret(w)
            ]
    if thing["kind"] == "ConfigMap":
        faults += [
            f"{title(thing)}: {key} in a config map" for key in thing["data"] if _SECRET_NAME.search(key)
        ]
    for text in _texts(thing):
        if re.search(r"://[^/\s:@]+:[^/\s@$]+@", text):
            faults.append(f"{title(thing)}: a password in a URI")
    return faults


def misplaced(thing: Object) -> list[str]:
    """Objects in another namespace than ours, or cluster-wide ones that claim to be in one."""
    found = thing["metadata"].get("namespace")
    wanted = None if thing["kind"] in CLUSTER_WIDE else NAMESPACE
    return [] if found == wanted else [f"{title(thing)}: namespace {found}, not {wanted}"]


def unprobed(thing: Object) -> list[str]:
    """Servers that nobody asks whether they are up, ready and alive."""
    if thing["kind"] not in ("Deployment", "StatefulSet"):
        return []
    return [
        f"{title(thing)}: {container['name']} has no {probe}"
        for template in pod_templates(thing)
        for container in template["spec"]["containers"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
        if probe not in container
    ]


def tokens(thing: Object) -> list[str]:
    """Pods of ours with a service account token: none of these talks to Kubernetes."""
    return [
        f"{title(thing)}: is given a token or the default service account"
        for template in pod_templates(thing)
        if template["spec"].get("automountServiceAccountToken") is not False
        or template["spec"].get("serviceAccountName") in (None, "default")
    ]


def rights_too_wide(thing: Object) -> list[str]:
    """Rules with a star, and secrets that are readable without being named."""
    faults = []
    for rule in thing.get("rules", []) if thing["kind"] in ("Role", "ClusterRole") else []:
        if any("*" in rule.get(part, []) for part in ("apiGroups", "resources", "verbs", "nonResourceURLs")):
            faults.append(f"{title(thing)}: a star in {rule}")
        if "secrets" in rule["resources"] and not rule.get("resourceNames"):
            faults.append(f"{title(thing)}: every secret of the namespace")
        if {"escalate", "bind", "impersonate"} & set(rule["verbs"]):
            faults.append(f"{title(thing)}: may make itself mightier")
    return faults


def dangling(objects: list[Object]) -> list[str]:
    """Services without pods, ports without names, references to service accounts or config not there.

    Secrets are not among the objects; `references` says which are referred to.
    """
    faults = []
    labels = [_labels(t) for o in objects for t in pod_templates(o)]
    accounts = {o["metadata"]["name"] for o in objects if o["kind"] == "ServiceAccount"}
    data = {o["metadata"]["name"]: set(o["data"]) for o in objects if o["kind"] == "ConfigMap"}
    for thing in objects:
        if thing["kind"] == "Service":
            faults += _service_faults(thing, objects)
        if thing["kind"] == "PodDisruptionBudget":
            wanted = thing["spec"]["selector"]["matchLabels"].items()
            if not any(wanted <= found.items() for found in labels):
                faults.append(f"{title(thing)}: selects no pod")
        for template in pod_templates(thing):
            account = template["spec"].get("serviceAccountName")
            if account not in accounts:
                faults.append(f"{title(thing)}: service account {account} is not there")
            for kind, name, key in references(template):
                if kind == "configMap" and (name not in data or (key and key not in data[name])):
                    faults.append(f"{title(thing)}: config map {name} has no {key or 'such name'}")
    return faults


def references(template: Object) -> Iterator[tuple[str, str, str | None]]:
    """("configMap" or "secret", its name, its key or None for all) of all that a pod template refers to."""
    for container in containers(template):
        for entry in container.get("env", []):
            source = entry.get("valueFrom", {})
            for kind in ("configMap", "secret"):
                if f"{kind}KeyRef" in source:
                    yield kind, source[f"{kind}KeyRef"]["name"], source[f"{kind}KeyRef"]["key"]
        for source in container.get("envFrom", []):
            for kind in ("configMap", "secret"):
                if f"{kind}Ref" in source:
                    yield kind, source[f"{kind}Ref"]["name"], None
    for volume in template["spec"].get("volumes", []):
        for kind, name in (("configMap", "name"), ("secret", "secretName")):
            if kind in volume:
                items = volume[kind].get("items") or [{"key": None}]
                for item in items:
                    yield kind, volume[kind][name], item["key"]


def _service_faults(service: Object, objects: list[Object]) -> list[str]:
    selector = service["spec"]["selector"].items()
    chosen = [t for o in objects for t in pod_templates(o) if selector <= _labels(t).items()]
    if not chosen:
        return [f"{title(service)}: selects no pod"]
    open_ports = {p.get("name") for t in chosen for c in containers(t) for p in c.get("ports", [])}
    faults = []
    for port in service["spec"]["ports"]:
        if not port.get("name"):
            faults.append(f"{title(service)}: port {port['port']} has no name")
        if port.get("targetPort") not in open_ports:
            faults.append(f"{title(service)}: port {port.get('targetPort')} is none of its pods'")
    return faults


def _labels(template: Object) -> dict[str, str]:
    labels: dict[str, str] = template.get("metadata", {}).get("labels", {})
    return labels


def _assigns_secret(word: str) -> bool:
    option, equals, value = word.partition("=")
    return bool(equals and _SECRET_NAME.search(option) and _is_literal(value))


def _is_literal(value: str) -> bool:
    return bool(re.search(r"\w", _REFERENCE.sub("", value)))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child)
