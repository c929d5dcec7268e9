"""A Kubeflow Pipelines server of one process: the v2beta1 REST calls that submitting and following need.

It refuses what the real API server refuses (names, experiment, pipeline, namespace, token), and nothing
leaves it that the API's own generated models do not know. What happens to a run is a script of `Look`s, one
per GET. Each is dressed as the real server dresses it: nodes of the workflow engine beside the tasks, and the
epoch or the year 1 where there is no time yet.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.pipelines.client.kfp_messages import (
    EPOCH,
    FINAL,
    START,
    Look,
    Refusal,
    check_pipeline,
    conform,
    matches,
    task_details,
)

_GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
_OUTPUT_ONLY = {"run_id", "state", "state_history", "run_details", "created_at", "finished_at", "error"}


@dataclass
class Trouble:
    """What happens instead of an answer to the next `times` requests that match.

    Attributes:
        match: pattern of "METHOD /path".
        kind: an HTTP status; "reset": the connection breaks before the request is done, "lost": after;
            "page", "no page": a web page, as 200 or 404; "redirect": to a login page; "quote": a 418 that
            repeats the request's headers; "hang": no answer for as long as the server lives.
    """

    match: str
    kind: int | str
    times: int = 1


@dataclass(frozen=True)
class Request:
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class KfpServer:
    """The server's state, and the knobs that a test turns.

    Attributes:
        tls: its certificate, from the next start on; None: plain HTTP.
        token: what every request must carry; None: anything goes.
        multi_user: whether it has many namespaces.
        namespaces: those that the token may work in.
        script: what successive GETs of a run show; the last one stays.
        after_terminate: the script from the moment on at which somebody cancels the run.
    """

    def __init__(self) -> None:
        self.tls: ssl.SSLContext | None = None
        self.token: str | None = None
        self.multi_user = False
        self.namespaces = {"team-a"}
        self.script: list[Look] = [Look("SUCCEEDED")]
        self.after_terminate: list[Look] = [Look("CANCELING"), Look("CANCELED")]
        self.troubles: list[Trouble] = []
        self.requests: list[Request] = []
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.asked = threading.Condition()
        self._http: ThreadingHTTPServer | None = None
        self._port = 0
        self._lock = threading.Lock()
        self._over = threading.Event()

    @property
    def host(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Begin to listen, at the same port each time."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                owner._serve(self)

            do_POST = do_GET

        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._http.daemon_threads = True
        if self.tls:
            self._http.socket = self.tls.wrap_socket(self._http.socket, server_side=True)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be gone: connections are refused."""
        self._over.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def lines(self, pattern: str = "") -> list[str]:
        """The requests so far, as "METHOD /path"; those that match."""
        return [request.line for request in self.requests if re.search(pattern, request.line)]

    def wait_for(self, pattern: str, times: int = 1, timeout: float = 30) -> None:
        """Return once that many requests that match have come in."""
        with self.asked:
            assert self.asked.wait_for(lambda: len(self.lines(pattern)) >= times, timeout), self.lines()

    def add_experiment(self, name: str, namespace: str = "", storage_state: str = "AVAILABLE") -> str:
        identity = str(uuid.uuid4())
        self.experiments[identity] = {
            "experiment_id": identity,
            "display_name": name,
            "created_at": START,
            "last_run_created_at": EPOCH,
            "namespace": namespace,
            "storage_state": storage_state,
        }
        return identity

    def _serve(self, http: BaseHTTPRequestHandler) -> None:
        url = urlsplit(http.path)
        length = int(http.headers.get("Content-Length") or 0)
        raw = http.rfile.read(length).decode()
        request = Request(
            http.command,
            url.path,
            {key: values[-1] for key, values in parse_qs(url.query).items()},
            {key.lower(): value for key, value in http.headers.items()},
            json.loads(raw) if raw else None,
        )
        with self._lock:
            trouble = next((t for t in self.troubles if t.times and re.search(t.match, request.line)), None)
            if trouble:
                trouble.times -= 1
            kind = trouble.kind if trouble else None
            status, answer = self._answer(request, kind)
        with self.asked:
            self.requests.append(request)
            self.asked.notify_all()
        if kind == "hang":
            self._over.wait()
        if kind in ("reset", "lost", "hang"):
            http.close_connection = True
            http.connection.close()
            http.wfile = open("/dev/null", "wb")  # noqa: SIM115
            return
        page = kind in ("page", "no page")
        status = {"redirect": 302, "no page": 404}.get(str(kind), status)
        data = b"<html>please wait</html>" if page else json.dumps(answer).encode()
        http.send_response(status)
        if kind == "redirect":
            http.send_header("Location", "/dex/auth")
        http.send_header("Content-Type", "text/html" if page else "application/json")
        http.send_header("Content-Length", str(len(data)))
        http.end_headers()
        http.wfile.write(data)

    def _answer(self, request: Request, kind: int | str | None) -> tuple[int, Any]:
        try:
            if isinstance(kind, int):
                raise Refusal(kind, f"scripted {kind}")
            if kind == "quote":
                raise Refusal(418, f"cannot read headers {request.headers}")
            if kind in ("reset", "page", "no page", "redirect", "hang"):
                return 200, {}
            model, body = self._route(request)
            if model is not None:
                conform(body, model)
            return 200, body
        except Refusal as refusal:
            message = str(refusal)
            code = _GRPC.get(refusal.status, 2)
            return refusal.status, {"error": message, "code": code, "message": message, "details": []}

    def _route(self, request: Request) -> tuple[str | None, Any]:
        if request.line == "GET /apis/v2beta1/healthz":  # the one call that real servers answer to anybody
            return None, {"commit_sha": "f00", "tag_name": "2.17.0", "multi_user": self.multi_user}
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refusal(401, "Request header error: there is no valid user identity header")
        match request.line.removeprefix(request.method + " /apis/v2beta1/").split("/"):
            case ["experiments"] if request.method == "GET":
                return "V2beta1ListExperimentsResponse", self._list_experiments(request.query)
            case ["experiments"]:
                return "V2beta1Experiment", self._create_experiment(request.body)
            case ["runs"] if request.method == "GET":
                return "V2beta1ListRunsResponse", self._list_runs(request.query)
            case ["runs"]:
                return "V2beta1Run", self._create_run(request.body)
            case ["runs", name] if request.method == "GET":
                return "V2beta1Run", self._look(self._known_run(name))
            case ["runs", name] if name.endswith(":terminate"):
                self._terminate(self._known_run(name.removesuffix(":terminate")))
                return None, {}
        raise Refusal(404, "Not Found")

    def _allowed(self, namespace: str) -> None:
        if self.multi_user and not namespace:
            raise Refusal(400, "An experiment cannot have an empty namespace in multi-user mode")
        if self.multi_user and namespace not in self.namespaces:
            raise Refusal(403, f"Unauthorized access to namespace {namespace}")
        if not self.multi_user and namespace:
            raise Refusal(400, "In single-user mode, there is no filtering by namespace")

    def _list_experiments(self, query: Mapping[str, str]) -> dict[str, Any]:
        self._allowed(query.get("namespace", ""))
        within = [e for e in self.experiments.values() if e["namespace"] == query.get("namespace", "")]
        found = [e for e in within if matches(e, query.get("filter"))]
        return {"experiments": found, "total_size": len(found)} if found else {}

    def _create_experiment(self, body: Any) -> dict[str, Any]:
        conform(body, "V2beta1Experiment")
        name, namespace = body.get("display_name", ""), body.get("namespace", "")
        if not name:
            raise Refusal(500, "Experiment must have a non-empty name")
        if len(name) > 128:
            raise Refusal(400, "Experiment.Name length cannot exceed 128")
        self._allowed(namespace)
        if any((e["display_name"], e["namespace"]) == (name, namespace) for e in self.experiments.values()):
            raise Refusal(409, f"Experiment {name} already exists")
        return self.experiments[self.add_experiment(name, namespace)]

    def _known_experiment(self, identity: str) -> dict[str, Any]:
        if identity not in self.experiments:
            raise Refusal(404, f"Experiment {identity} not found")
        return self.experiments[identity]

    def _list_runs(self, query: Mapping[str, str]) -> dict[str, Any]:
        self._known_experiment(query.get("experiment_id", ""))
        within = [r for r in self.runs.values() if r["experiment_id"] == query["experiment_id"]]
        found = [_public(r) for r in within if matches(r, query.get("filter"))]
        return {"runs": found, "total_size": len(found)} if found else {}

    def _create_run(self, body: Any) -> dict[str, Any]:
        conform(body, "V2beta1Run")
        if _OUTPUT_ONLY & set(body):
            raise Refusal(400, f"set by the server only: {sorted(_OUTPUT_ONLY & set(body))}")
        if not body.get("display_name"):
            raise Refusal(500, "Run name cannot be empty")
        if "runtime_config" not in body:
            raise Refusal(400, "runtime_config is required")
        if ("pipeline_spec" in body) == ("pipeline_version_reference" in body):
            raise Refusal(400, "exactly one of pipeline_spec and pipeline_version_reference is required")
        experiment = self._known_experiment(body.get("experiment_id", ""))
        self._allowed(experiment["namespace"])
        check_pipeline(body.get("pipeline_spec", {}))
        run = {
            **body,
            "run_id": str(uuid.uuid4()),
            "storage_state": "AVAILABLE",
            "created_at": START,
            "scheduled_at": START,
            "finished_at": EPOCH,
            "state": "PENDING",
            "state_history": [{"update_time": START, "state": "PENDING"}],
            "script": None,
        }
        self.runs[run["run_id"]] = run
        return _public(run)

    def _known_run(self, identity: str) -> dict[str, Any]:
        if identity not in self.runs:
            raise Refusal(404, f"Run {identity} not found")
        return self.runs[identity]

    def _look(self, run: dict[str, Any]) -> dict[str, Any]:
        if run["script"] is None:
            run["script"] = list(self.script)
        look = run["script"].pop(0) if len(run["script"]) > 1 else run["script"][0]
        if look.state is None:  # what the API gives where a run's own record cannot be read
            error = {"code": 13, "message": look.error, "details": []}
            return {"run_id": run["run_id"], "experiment_id": run["experiment_id"], "error": error}
        run["state"] = look.state
        seen = [entry["state"] for entry in run["state_history"]]
        for state in (*look.history, look.state):
            if state != seen[-1]:
                run["state_history"].append({"update_time": START, "state": state})
                seen.append(state)
        ended = look.state in FINAL
        shown = _public(run) | {"finished_at": "2026-11-05T14:10:00Z" if ended else EPOCH}
        if look.error:
            shown["error"] = {"code": 13, "message": look.error, "details": []}
        if look.tasks:
            shown["run_details"] = {"task_details": task_details(run["run_id"], look)}
        return shown

    def _terminate(self, run: dict[str, Any]) -> None:
        if run["state"] in FINAL:
            raise Refusal(400, f"Failed to terminate a run {run['run_id']}. Row not found")
        run["state"] = "CANCELING"
        run["script"] = list(self.after_terminate)


@contextmanager
def serving() -> Iterator[KfpServer]:
    """A server that listens until the end of the block."""
    server = KfpServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _public(run: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != "script"}
