"""The launcher's few calls to the Kubernetes API: plain JSON values, patient with a server that is away."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tenacity
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from components.runtime.errors import InputError, Interrupted, one_line
from pipelines.trainjob.manifest import GROUP, NODE, PLURAL, VERSION

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT_S = (10, 60)
# A quiet log says nothing for long; a connection that is silently dead must still be noticed.
_LOG_TIMEOUT_S = (10, 300)
_PATIENCE_S = 1800.0
_RBAC = re.compile(r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"')


class Cluster:
    """One namespace of a cluster.

    Args:
        api: a configured API client.
        namespace: where TrainJobs are created.
        patience_s: seconds to go on trying while the API server does not answer.
        pause_s: seconds before the second try, about; it doubles with each one.
    """

    def __init__(
        self, api: client.ApiClient, namespace: str, patience_s: float = _PATIENCE_S, pause_s: float = 0.5
    ) -> None:
        self.namespace, self.patience_s, self._pause_s = namespace, patience_s, pause_s
        self._objects, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    @classmethod
    def connect(cls) -> Cluster:
        """The cluster this pod runs in, else the one that the kubeconfig's current context names.

        Raises:
            InputError: if there is neither.
        """
        settings = client.Configuration()
        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config(client_configuration=settings)
                namespace = _NAMESPACE_FILE.read_text().strip()
            else:
                config.load_kube_config(client_configuration=settings)
                context = config.list_kube_config_contexts()[1]["context"]
                namespace = context.get("namespace") or "default"
        except (config.ConfigException, OSError) as error:
            raise InputError(f"no Kubernetes cluster to run on: {one_line(error)}") from None
        settings.retries = False  # one place decides what is tried again: _call
        return cls(client.ApiClient(settings), namespace)

    def job(self, name: str) -> dict[str, Any] | None:
        """The TrainJob `name`, None if there is none."""
        try:
            return self._call(self._objects.get_namespaced_custom_object, *self._kind, name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def create_job(self, body: dict[str, Any]) -> bool:
        """Create a TrainJob; False if one of its name is there already.

        Raises:
            InputError: if the cluster knows no TrainJobs, or will not have this one.
        """
        try:
            self._call(self._objects.create_namespaced_custom_object, *self._kind, body)
        except ApiException as error:
            if error.status == 409:
                return False
            if error.status == 404:
                raise InputError(
                    f"this cluster knows no {PLURAL}.{GROUP}/{VERSION} in namespace {self.namespace}: "
                    "install Kubeflow Trainer 2.3"
                ) from None
            raise
        return True

    def delete_job(self, name: str, patience_s: float | None = None) -> None:
        """Delete the TrainJob `name` with all that belongs to it; one that is not there is no error.

        It stays visible until its pods are gone.
        """
        options = client.V1DeleteOptions(propagation_policy="Foreground")
        try:
            delete = self._objects.delete_namespaced_custom_object
            self._call(delete, *self._kind, name, body=options, patience_s=patience_s)
        except ApiException as error:
            if error.status != 404:
                raise

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of TrainJob `name` that are or were its nodes."""
        selector = f"jobset.sigs.k8s.io/jobset-name={name},jobset.sigs.k8s.io/replicatedjob-name={NODE}"
        return self._items(self._core.list_namespaced_pod, label_selector=selector)

    def events(self) -> list[dict[str, Any]]:
        """The namespace's recent events."""
        return self._items(self._core.list_namespaced_event)

    def log(self, pod: str, since_s: int | None = None) -> urllib3.BaseHTTPResponse:
        """The log of node container of `pod`, timestamped, as a stream that follows it. Tries once.

        Args:
            pod: its name.
            since_s: seconds before now where to begin, None for the start.
        """
        begin = {} if since_s is None else {"since_seconds": since_s}
        return self._log(pod, _LOG_TIMEOUT_S, follow=True, timestamps=True, **begin)

    def log_end(self, pod: str, lines: int) -> list[str]:
        """The last `lines` lines that the node container of `pod` wrote, [] if they cannot be had."""
        try:
            text = self._log(pod, _TIMEOUT_S, tail_lines=lines).data
        except (ApiException, urllib3.exceptions.HTTPError, OSError):
            return []
        return text.decode(errors="replace").splitlines()

    def _log(self, pod: str, timeout_s: tuple[int, int], **options: Any) -> urllib3.BaseHTTPResponse:
        return self._core.read_namespaced_pod_log(
            pod, self.namespace, container=NODE, _preload_content=False, _request_timeout=timeout_s, **options
        )

    @property
    def _kind(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL

    def _items(self, function: Callable[..., Any], **options: Any) -> list[dict[str, Any]]:
        # As plain JSON: the client's own classes refuse objects of other Kubernetes versions than its own.
        response = self._call(function, self.namespace, _preload_content=False, **options)
        return list(json.loads(response.data).get("items") or [])

    def _call(
        self, function: Callable[..., Any], *args: Any, patience_s: float | None = None, **options: Any
    ) -> Any:
        patience = self.patience_s if patience_s is None else patience_s
        began = time.monotonic()
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_passing),
            wait=tenacity.wait_random_exponential(multiplier=self._pause_s, max=30),
            stop=tenacity.stop_after_delay(patience),
            before_sleep=_say_waiting,
            reraise=True,
        )
        with self._explained(began):
            return attempts(function, *args, _request_timeout=_TIMEOUT_S, **options)

    @contextmanager
    def _explained(self, began: float) -> Iterator[None]:
        """Turn what a call ends with into one line; 404 and 409 are left to the caller."""
        try:
            yield
        except Exception as error:
            if is_passing(error):
                raise Interrupted(
                    f"the Kubernetes API did not answer for {time.monotonic() - began:.0f} s "
                    f"({_reason(error)}); a TrainJob that was created goes on, the next attempt finds it"
                ) from error
            if not isinstance(error, ApiException) or error.status in (404, 409):
                raise
            raise InputError(self.refusal(error)) from error

    def refusal(self, error: ApiException) -> str:
        """One line about a call that the cluster will not carry out, naming the right that is missing."""
        message = _message(error)
        if error.status == 401:
            return "the Kubernetes API does not accept this pod's token (401); check its service account"
        lacking = _RBAC.search(message) if error.status == 403 else None
        if lacking:
            return (
                f"{lacking['user']} may not {lacking['verb']} {lacking['resource']} in namespace "
                f"{self.namespace}: its Role lacks the verb `{lacking['verb']}` on {lacking['resource']}"
            )
        return f"Kubernetes refused ({error.status}): {message}"


def is_passing(error: BaseException) -> bool:
    """Whether a failed call may succeed later as it stands."""
    if isinstance(error, ApiException):
        status = error.status or 0
        return status == 0 or status >= 500 or status in (408, 410, 429)
    return isinstance(error, (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError))


def _message(error: ApiException) -> str:
    """What the API server said, out of its Status object if it sent one."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        text = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        text = body or error.reason or ""
    return one_line(text)


def _reason(error: BaseException) -> str:
    if isinstance(error, ApiException):
        return f"{error.status} {_message(error)}".strip()
    return one_line(error)


def _say_waiting(state: tenacity.RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        error = state.outcome.exception()
        assert error is not None
        print(
            f"trainjob: the Kubernetes API fails, trying again: {_reason(error)}", file=sys.stderr, flush=True
        )
