"""The few calls of Kubeflow Pipelines' v2beta1 REST API that submit and watch need."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import kfp_server_api
from kfp_server_api import V2beta1Experiment, V2beta1Run

from components.runtime.errors import InputError
from pipelines.client.connection import AlreadyExists, Connection, NotFound, PollingPolicy, ServerError
from pipelines.client.token import Token

#: Where the UI is, if not at the API's host; the name that kfp's own client reads.
UI_VARIABLE = "KF_PIPELINES_UI_ENDPOINT"
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
#: States in which a run stays as it is.
FINAL = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})
_HEALTH_KEYS = frozenset({"multi_user", "commit_sha", "tag_name"})


class Server(Connection):
    """A Kubeflow Pipelines server; `connect` before any other call. See `Connection` for the arguments."""

    def __init__(self, host: str, token: Token | None, polling: PollingPolicy) -> None:
        super().__init__(host, token, polling)
        self.multi_user = False
        self._experiments = kfp_server_api.ExperimentServiceApi(self.api)
        self._runs = kfp_server_api.RunServiceApi(self.api)

    def connect(self) -> None:
        """Meet the server and learn whether it has one namespace or many.

        Raises:
            InputError: if nobody answers at that host, or not a Kubeflow Pipelines server.
            ServerUnavailable: if it is there but unavailable for too long.
        """
        greet = kfp_server_api.HealthzServiceApi(self.api).healthz_service_get_healthz
        try:
            self.multi_user = bool(self.read("greet it", greet).multi_user)
        except NotFound:
            raise InputError(self.stranger("404 for /apis/v2beta1/healthz")) from None
        if not _HEALTH_KEYS & set(self.last_object()):
            raise InputError(self.stranger("its /apis/v2beta1/healthz says something else"))

    def namespace(self, wanted: str | None) -> str | None:
        """The namespace to work in: `wanted`, else the pod's own on a server with many, else none.

        Raises:
            InputError: if the server needs one and there is none.
        """
        if not self.multi_user:
            if wanted:
                self.note(f"{self.host} is a single-user server: --namespace {wanted} has no effect")
            return None
        if wanted:
            return wanted
        try:
            return POD_NAMESPACE.read_text(encoding="utf-8").strip()
        except OSError:
            raise InputError(f"{self.host} serves many namespaces: --namespace must name yours") from None

    def experiment(self, name: str, namespace: str | None) -> str:
        """Id of experiment `name`, created if there is none.

        Raises:
            InputError: if it is archived, or not allowed to us.
        """
        found = self._find_experiment(name, namespace)
        if found is None:
            create = self._experiments.experiment_service_create_experiment
            wanted = V2beta1Experiment(display_name=name, namespace=namespace)
            try:
                found = self.call(f"create experiment {name}{_in(namespace)}", create, wanted)
            except AlreadyExists:  # by somebody else, or by an attempt of ours whose answer was lost
                found = self._find_experiment(name, namespace)
        if found is None or not found.experiment_id:
            raise ServerError(f"{self.host}: experiment {name} was neither found nor created")
        if found.storage_state == "ARCHIVED":
            raise InputError(f"experiment {name} is archived; restore it, or name another with --experiment")
        return str(found.experiment_id)

    def create_run(self, run: V2beta1Run, namespace: str | None) -> str:
        """Create `run` once, however often its request must be sent; its id.

        Creating is not idempotent on the server, and an answer may be lost after the run was created: so each
        run is marked by its description, and looked for before a second attempt.
        """
        run.description = f"onlinevpo submission {uuid.uuid4().hex}"
        marked = _equals("description", run.description)
        sent = False

        def attempt(_request_timeout: tuple[float, float]) -> V2beta1Run:
            nonlocal sent
            if sent:
                there = self._runs.run_service_list_runs(
                    experiment_id=run.experiment_id, filter=marked, _request_timeout=_request_timeout
                )
                if there.runs:
                    return there.runs[0]
            sent = True
            return self._runs.run_service_create_run(run, _request_timeout=_request_timeout)

        created = self.call(f"create a run{_in(namespace)}", attempt)
        if not created.run_id:
            why = self.failure(created.error) or "it has no id"
            raise ServerError(f"{self.host}: the run was not created: {why}")
        return str(created.run_id)

    def run(self, run_id: str) -> V2beta1Run:
        """The run as it is now.

        Raises:
            NotFound: if there is no such run (any more).
        """
        return self.read(f"read run {run_id}", self._runs.run_service_get_run, run_id)

    def terminate(self, run_id: str) -> None:
        """Ask for the end of a run; one that has ended already is left alone."""
        try:
            self.call(f"cancel run {run_id}", self._runs.run_service_terminate_run, run_id)
        except InputError:
            if self.run(run_id).state not in FINAL:
                raise

    def url(self, run_id: str) -> str:
        """Where a person looks at a run."""
        ui = (os.environ.get(UI_VARIABLE) or self.host).rstrip("/")
        return f"{ui if '://' in ui else 'http://' + ui}/#/runs/details/{run_id}"

    def _find_experiment(self, name: str, namespace: str | None) -> V2beta1Experiment | None:
        given = {"namespace": namespace} if namespace else {}
        found = self.read(
            f"list experiments{_in(namespace)}",
            self._experiments.experiment_service_list_experiments,
            filter=_equals("display_name", name),
            **given,
        )
        return next(iter(found.experiments or ()), None)


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})


def _in(namespace: str | None) -> str:
    return f" in namespace {namespace}" if namespace else ""
