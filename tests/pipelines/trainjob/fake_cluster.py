"""A Kubernetes API over HTTP in this process: TrainJobs, pods, events and logs that follow a script.

The script is a list of changes. Each look at a TrainJob by name makes the next one happen, so that a test
says what the launcher sees and never waits for a clock.
"""

from __future__ import annotations

import json
import re
import threading
import time
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubeflow_trainer_api import models
from kubernetes import client
from pydantic import BaseModel, RootModel

NAMESPACE = "onlinevpo"
JOBS = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
Change = Callable[["FakeCluster"], None]


def stamp(ago_s: float = 0.0) -> str:
    """A moment as the Kubernetes API writes it, in whole seconds."""
    return (datetime.now(UTC) - timedelta(seconds=ago_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Fault:
    """The next requests of a kind fail: with a status, or (0) by a connection that breaks."""

    method: str
    path: str
    status: int
    times: int = 1
    message: str = "out of order"


@dataclass
class FakeCluster:
    """The state of the cluster, changed by requests and by `script`."""

    script: list[Change] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    break_log_after: list[int] = field(default_factory=list)
    """After how many lines each connection to a log breaks, in the middle of the next line."""
    requests: list[str] = field(default_factory=list)
    deleted: list[dict[str, Any]] = field(default_factory=list)
    looks_until_gone: int = 0
    """How often a deleted TrainJob is still seen, being deleted."""
    generation: int = 0
    """How often the nodes got new pods."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    endpoint: str = ""

    def __enter__(self) -> FakeCluster:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def client(self) -> client.ApiClient:
        """A client of this cluster."""
        settings = client.Configuration(host=self.endpoint)
        settings.retries = False
        return client.ApiClient(settings)

    @property
    def job(self) -> dict[str, Any]:
        """The only TrainJob."""
        (job,) = self.jobs.values()
        return job

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.job["metadata"]["name"])

    def made(self, kind: str) -> list[str]:
        """The requests of a method ("POST") that were answered, or of a method and path."""
        return [request for request in self.requests if request.startswith(kind)]

    def set_condition(self, kind: str, reason: str, message: str = "", status: str = "True") -> None:
        """Set a condition of the TrainJob."""
        conditions = self.job["status"].setdefault("conditions", [])
        conditions[:] = [entry for entry in conditions if entry["type"] != kind]
        conditions.append(
            {"type": kind, "status": status, "reason": reason, "message": message,
             "lastTransitionTime": stamp()}
        )  # fmt: skip

    def pod(self, index: int) -> str:
        """The name of the pod of node `index`."""
        return f"{self.name}-node-0-{index}-{'abcde'[self.generation] * 5}"

    def set_pod(self, index: int, *, phase: str = "Pending", **status: Any) -> None:
        """Set the status of the pod of node `index`."""
        name = self.pod(index)
        labels = {
            "jobset.sigs.k8s.io/jobset-name": self.name,
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": str(index),
        }
        about = {"name": name, "labels": labels, "creationTimestamp": stamp(100)}
        self.pods[name] = {"metadata": about, "status": {"phase": phase, **status}}
        self.logs.setdefault(name, [])

    def create(self, body: dict[str, Any]) -> None:
        """Do what the API server and the trainer's admission do with a new TrainJob.

        Raises:
            ValueError: if one of them would refuse it.
        """
        check_train_job(body)
        body["metadata"] |= {"creationTimestamp": stamp(), "uid": f"uid-{len(self.requests)}"}
        body.setdefault("status", {})
        self.jobs[body["metadata"]["name"]] = body


def state(**container: Any) -> dict[str, Any]:
    """The part of a pod's status that speaks of the node's container."""
    return {"containerStatuses": [{"name": "node", "state": container}]}


def running(since_s: float = 5.0, nodes: int = 2) -> Change:
    """All nodes run."""

    def change(cluster: FakeCluster) -> None:
        for index in range(nodes):
            cluster.set_pod(index, phase="Running", **state(running={"startedAt": stamp(since_s)}))

    return change


def ended(index: int, code: int, reason: str = "", at: int = 0, **status: Any) -> Change:
    """A node ends with `code`, `at` seconds after the others."""

    def change(cluster: FakeCluster) -> None:
        terminated = {
            "exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"),
            "startedAt": stamp(5), "finishedAt": stamp(4 - at),
        }  # fmt: skip
        phase = "Succeeded" if code == 0 else "Failed"
        cluster.set_pod(index, phase=phase, **{**state(terminated=terminated), **status})

    return change


def says(*lines: str, index: int = 0) -> Change:
    """A node writes lines to its log."""

    def change(cluster: FakeCluster) -> None:
        cluster.logs[cluster.pod(index)] += [(time.time(), line) for line in lines]

    return change


def complete(cluster: FakeCluster) -> None:
    """The TrainJob is complete."""
    for index in range(len(cluster.pods)):
        ended(index, 0)(cluster)
    cluster.set_condition("Complete", "AllJobsCompleted", "jobset completed successfully")


def failed(cluster: FakeCluster) -> None:
    """The TrainJob has failed; pods that still run are taken away."""
    for name in [name for name, pod in cluster.pods.items() if "running" in _container(pod)]:
        del cluster.pods[name]
    cluster.set_condition("Failed", "FailedJobs", "jobset failed due to one or more job failures")


def _container(pod: dict[str, Any]) -> dict[str, Any]:
    (status,) = pod["status"].get("containerStatuses") or [{}]
    container: dict[str, Any] = status.get("state") or {}
    return container


def nothing(cluster: FakeCluster) -> None:
    """Nothing happens."""


def together(*changes: Change) -> Change:
    """Several changes seen at one look."""

    def change(cluster: FakeCluster) -> None:
        for each in changes:
            each(cluster)

    return change


class _Handler(BaseHTTPRequestHandler):
    """One request; `cluster` is set on a subclass."""

    cluster: FakeCluster
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # each answer would wait for 40 ms

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        cluster, url = self.cluster, urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        with cluster.lock:
            for fault in cluster.faults:
                if fault.times and fault.method == self.command and re.search(fault.path, url.path):
                    fault.times -= 1
                    if not fault.status:
                        self.close_connection = True
                        self.connection.close()
                        return
                    return self._status(fault.status, fault.message)
            cluster.requests.append(f"{self.command} {url.path}")
            if not url.path.endswith("/log"):
                return self._answer(url.path, body)
        self._log(url.path.split("/")[-2], parse_qs(url.query))

    def _answer(self, path: str, body: dict[str, Any]) -> None:
        cluster = self.cluster
        if path == JOBS and self.command == "POST":
            name = body["metadata"]["name"]
            if name in cluster.jobs:
                return self._status(409, f'trainjobs "{name}" already exists')
            try:
                cluster.create(body)
            except ValueError as error:
                return self._status(422, str(error))
            return self._json(201, body)
        if path.startswith(f"{JOBS}/"):
            name = path.rsplit("/", 1)[1]
            job = cluster.jobs.get(name)
            if job is None:
                return self._status(404, f'trainjobs "{name}" not found')
            if self.command == "DELETE":
                cluster.deleted.append(body)
                job["metadata"]["deletionTimestamp"] = stamp()
                if not cluster.looks_until_gone:
                    del cluster.jobs[name]
                return self._status(200, "")
            if "deletionTimestamp" in job["metadata"]:
                cluster.looks_until_gone -= 1
                if cluster.looks_until_gone < 0:
                    del cluster.jobs[name]
                    cluster.pods.clear()
                    return self._status(404, f'trainjobs "{name}" not found')
            elif cluster.script:
                cluster.script.pop(0)(cluster)
            return self._json(200, cluster.jobs[name])
        if path == f"{CORE}/pods":
            return self._json(200, {"items": list(cluster.pods.values())})
        if path == f"{CORE}/events":
            return self._json(200, {"items": cluster.events})
        self._status(404, f"no such path {path}")

    def _log(self, pod: str, query: dict[str, list[str]]) -> None:
        cluster = self.cluster
        if pod not in cluster.logs:
            return self._status(404, f'pods "{pod}" not found')
        if "tailLines" in query:
            text = "\n".join(line for _, line in cluster.logs[pod][-int(query["tailLines"][0]) :])
            return self._bytes(200, text.encode(), "text/plain")
        after = time.time() - int(query["sinceSeconds"][0]) if "sinceSeconds" in query else 0.0
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        left = cluster.break_log_after.pop(0) if cluster.break_log_after else None
        sent = 0
        while True:
            with cluster.lock:
                lines = [entry for entry in cluster.logs[pod] if entry[0] >= after]
                over = pod not in cluster.pods or "terminated" in _container(cluster.pods[pod])
            for at, line in lines[sent:]:
                moment = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
                whole = f"{moment} {line}\n".encode()
                if left == 0:
                    self._chunk(whole[: len(whole) // 2])
                    self.close_connection = True
                    self.connection.close()
                    return
                self._chunk(whole)
                sent += 1
                left = None if left is None else left - 1
            if over:
                self._chunk(b"")
                return
            time.sleep(0.01)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _status(self, code: int, message: str) -> None:
        ok = "Success" if code < 400 else "Failure"
        self._json(code, {"kind": "Status", "status": ok, "message": message, "code": code})

    def _json(self, code: int, value: Any) -> None:
        self._bytes(code, json.dumps(value).encode(), "application/json")

    def _bytes(self, code: int, data: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def check_train_job(body: dict[str, Any]) -> None:
    """What the CRD and the trainer's admission of Trainer 2.3 ask of a TrainJob.

    Raises:
        ValueError: if it has an unknown field, a wrong type, or breaks one of their rules.
    """
    unknown = sorted(_unknown(body, models.TrainerV1alpha1TrainJob))
    if unknown:
        raise ValueError(f"strict decoding error: unknown fields {', '.join(unknown)}")
    job = models.TrainerV1alpha1TrainJob.from_dict(body)
    assert job is not None and job.metadata is not None and job.spec is not None
    name = job.metadata.name or ""
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise ValueError(f"metadata.name {name} must match RFC 1035 DNS label format")
    trainer = job.spec.trainer
    if trainer is None or not trainer.num_nodes:
        raise ValueError("no spec.trainer: no PET_* variables would be set")
    longest = f"{name}-node-0-{trainer.num_nodes - 1}-xxxxx"
    if len(longest) > 63:
        raise ValueError(f"pod name {longest} is longer than 63 characters")
    for entry in [*job.metadata.labels.values()] if job.metadata.labels else []:
        if not re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", entry):
            raise ValueError(f"label value {entry!r} is not valid")
    names = [variable.name for variable in trainer.env or []]
    if len(names) != len(set(names)) or any(n.startswith("PET_") for n in names):
        raise ValueError("spec.trainer.env: duplicate or reserved names")
    for patch in job.spec.runtime_patches or []:
        if not re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9/_.-]+", patch.manager):
            raise ValueError(f"runtimePatches manager {patch.manager}: must be a domain-prefixed path")
        for job_patch in patch.training_runtime_spec.template.spec.replicated_jobs:
            if job_patch.name != "node":
                raise ValueError(f"replicated job {job_patch.name} is not in the runtime")
            for container in job_patch.template.spec.template.spec.containers:
                if container.name != "node" or container.env:
                    raise ValueError("only container node is patched, and never its env")


def _unknown(value: Any, kind: Any, path: str = "") -> set[str]:
    """Paths of `value` that type `kind` has no field for."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Union:
        (kind,) = [argument for argument in arguments if argument is not type(None)]
        return _unknown(value, kind, path)
    if isinstance(value, list):
        return {
            bad
            for index, entry in enumerate(value)
            for bad in _unknown(entry, arguments[0], f"{path}[{index}]")
        }
    if not isinstance(value, dict):
        return set()
    if isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, RootModel):
        fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
        bad = {f"{path}.{key}".strip(".") for key in value if key not in fields}
        for key in value.keys() & fields.keys():
            bad |= _unknown(value[key], fields[key], f"{path}.{key}")
        return {entry.strip(".") for entry in bad}
    inner = arguments[1] if len(arguments) == 2 else None
    return {bad for key, entry in value.items() for bad in _unknown(entry, inner, f"{path}.{key}")}
