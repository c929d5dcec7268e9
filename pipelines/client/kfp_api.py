"""A Kubeflow Pipelines server as submit and watch speak to it: its v2beta1 REST API, with patience.

This is the client that kfp generates from the API (kfp_server_api), not `kfp.Client` around it: that one has
no time limit on a request, asks an unreachable host for half a minute with tracebacks, prints to stdout, and
writes the namespace it finds into the user's home.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api
from kfp_server_api import ApiException, V2beta1Experiment, V2beta1Run
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from components.runtime.errors import InputError, Interrupted, OnlineVPOError
from components.runtime.progress import duration
from pipelines.client.address import checked_host, proxy_for
from pipelines.client.token import POD_TOKEN, TOKEN_VARIABLE, Token

#: Where the UI is, if not at the API's host; the name that kfp's own client reads.
UI_VARIABLE = "KF_PIPELINES_UI_ENDPOINT"
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
#: States in which a run stays as it is.
FINAL = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})
_AWAY = frozenset({408, 429, 502, 503, 504})
_HEALTH_KEYS = frozenset({"multi_user", "commit_sha", "tag_name"})
_FIRST_PATIENCE = 60.0  # seconds; a host that has never answered may simply be the wrong one
_LONGEST_MESSAGE = 400


@dataclass(frozen=True)
class Pace:
    """How often and for how long; all in seconds.

    Attributes:
        poll: between two looks at a run.
        quiet: a line at least this often while nothing changes.
        patience: how long a server that was there may fail to answer before we give up.
        timeout: of one request.
        longest_wait: between two attempts at a request, and up to one second more.
        sleep: waits that many seconds.
        clock: monotonic seconds.
    """

    poll: float = 5.0
    quiet: float = 60.0
    patience: float = 600.0
    timeout: float = 30.0
    longest_wait: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class ServerError(OnlineVPOError):
    """The server answered, and the answer is its own failure."""


class ServerSilent(Interrupted):
    """The server did not answer for as long as our patience lasts."""


class NotThere(OnlineVPOError):
    """What was asked for does not exist on the server."""


class _Exists(OnlineVPOError):
    """What was to be created is there already."""


class _NoAnswer(Exception):
    """A failure worth another attempt."""


class Server:
    """The server at `host`; `connect` before anything else.

    Every call waits out a server that is away for a while, says so on stderr, and ends in one line.

    Args:
        host: URL of the Kubeflow Pipelines API.
        token: sent with every request, if given.
        pace: time limits.

    Raises:
        InputError: if `host` is no http(s) URL or carries a password, the environment's proxy is no such URL,
            or the token cannot be read.
    """

    def __init__(self, host: str, token: Token | None, pace: Pace) -> None:
        self.host = checked_host(host)
        self.multi_user = False
        self._token, self._pace = token, pace
        self._met = False
        self._silent_since: float | None = None
        config = kfp_server_api.Configuration(host=self.host)
        # Retries are `_call`'s business alone, and a redirect to a login page is no answer.
        config.retries = False
        self._proxy = proxy_for(self.host)
        if self._proxy is not None:
            config.proxy, config.proxy_headers = self._proxy.url, self._proxy.headers
        config.ssl_ca_cert = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
        if token is not None:
            config.api_key["authorization"] = token.read()
            config.api_key_prefix["authorization"] = "Bearer"
            config.refresh_api_key_hook = self._renew
        self._config = config
        self._api = kfp_server_api.ApiClient(config)
        self._experiments = kfp_server_api.ExperimentServiceApi(self._api)
        self._runs = kfp_server_api.RunServiceApi(self._api)

    def connect(self) -> None:
        """Meet the server and learn whether it has one namespace or many.

        Raises:
            InputError: if nobody answers at that host, or not a Kubeflow Pipelines server.
            ServerSilent: if it is there but unavailable for too long.
        """
        greet = kfp_server_api.HealthzServiceApi(self._api).healthz_service_get_healthz
        try:
            self.multi_user = bool(self._read("greet it", greet).multi_user)
        except NotThere:
            raise InputError(self._stranger("404 for /apis/v2beta1/healthz")) from None
        if not _HEALTH_KEYS & set(self._last()):
            raise InputError(self._stranger("its /apis/v2beta1/healthz says something else"))

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
                found = self._call(f"create experiment {name}{_in(namespace)}", create, wanted)
            except _Exists:  # by somebody else, or by an attempt of ours whose answer was lost
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

        created = self._call(f"create a run{_in(namespace)}", attempt)
        if not created.run_id:
            why = self.failure(created.error) or "it has no id"
            raise ServerError(f"{self.host}: the run was not created: {why}")
        return str(created.run_id)

    def run(self, run_id: str) -> V2beta1Run:
        """The run as it is now.

        Raises:
            NotThere: if there is no such run (any more).
        """
        return self._read(f"read run {run_id}", self._runs.run_service_get_run, run_id)

    def terminate(self, run_id: str) -> None:
        """Ask for the end of a run; one that has ended already is left alone."""
        try:
            self._call(f"cancel run {run_id}", self._runs.run_service_terminate_run, run_id)
        except InputError:
            if self.run(run_id).state not in FINAL:
                raise

    def url(self, run_id: str) -> str:
        """Where a person looks at a run."""
        ui = (os.environ.get(UI_VARIABLE) or self.host).rstrip("/")
        return f"{ui if '://' in ui else 'http://' + ui}/#/runs/details/{run_id}"

    def note(self, line: str) -> None:
        """A line about the connection: on stderr, beside the result on stdout."""
        print(f"note: {self.clean(line)}", file=sys.stderr, flush=True)

    def clean(self, text: object) -> str:
        """Text from outside as part of one line: nothing unprintable, no token, not endless."""
        line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
        line = self._token.redacted(line) if self._token else line
        return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + "..."

    def failure(self, status: Any) -> str:
        """The message of a google.rpc.Status, "" if there is none."""
        return self.clean(getattr(status, "message", None) or "")

    def _find_experiment(self, name: str, namespace: str | None) -> V2beta1Experiment | None:
        given = {"namespace": namespace} if namespace else {}
        found = self._read(
            f"list experiments{_in(namespace)}",
            self._experiments.experiment_service_list_experiments,
            filter=_equals("display_name", name),
            **given,
        )
        return next(iter(found.experiments or ()), None)

    def _renew(self, config: kfp_server_api.Configuration) -> None:
        assert self._token is not None
        config.api_key["authorization"] = self._token.read()

    def _read(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A call that changes nothing, which may therefore be repeated after a 500 too."""
        return self._call(what, function, *args, away=_AWAY | {500}, **kwargs)

    def _call(
        self,
        what: str,
        function: Callable[..., Any],
        *args: Any,
        away: frozenset[int] = _AWAY,
        **kwargs: Any,
    ) -> Any:
        """One request, repeated while the server is away.

        Args:
            what: completes "the token may not ...", "could not ...".
            function: of the generated client.
            away: HTTP statuses of a server that may be back soon.
        """
        began = self._pace.clock()
        patience = self._pace.patience if self._met else min(self._pace.patience, _FIRST_PATIENCE)

        def impatient(state: RetryCallState) -> bool:
            return self._pace.clock() - began >= patience

        def waiting(state: RetryCallState) -> None:
            if self._silent_since is None and state.outcome is not None:
                self._silent_since = began
                why = state.outcome.exception()
                self.note(f"{self.host}: {why}; trying again for up to {duration(patience)}")

        try:
            answer = Retrying(
                retry=retry_if_exception_type(_NoAnswer),
                stop=impatient,
                wait=wait_exponential(multiplier=0.5, max=self._pace.longest_wait) + wait_random(0, 1),
                sleep=self._pace.sleep,
                before_sleep=waiting,
                reraise=True,
            )(self._once, what, function, args, kwargs, away)
        except _NoAnswer as error:
            took = duration(self._pace.clock() - began)
            raise ServerSilent(f"{self.host}: {error}; tried for {took}") from None
        if self._silent_since is not None:
            self.note(f"{self.host} answers again, after {duration(self._pace.clock() - self._silent_since)}")
            self._silent_since = None
        self._met = True
        return answer

    def _once(
        self, what: str, function: Callable[..., Any], args: Any, kwargs: Any, away: frozenset[int]
    ) -> Any:
        limits = (self._pace.timeout, self._pace.timeout)
        try:
            answer = function(*args, _request_timeout=limits, **kwargs)
        except ApiException as error:
            raise self._understood(error, what, away) from None
        except HTTPError as error:
            raise self._unreached(error) from None
        except (UnicodeDecodeError, LookupError):
            raise self._no_json() from None
        except AttributeError as error:
            # The generated client trips over the missing body where TLS failed, before any answer.
            if isinstance(error.__context__, ApiException):
                raise self._unreached(error.__context__) from None
            raise
        self._last()
        return answer

    def _last(self) -> dict[str, Any]:
        """The last answer's JSON object. The generated client makes an empty object of any web page."""
        found = _json_object(self._api.last_response.data)
        if found is None:
            raise self._no_json()
        return found

    def _no_json(self) -> Exception:
        if self._met:  # a gateway in front of it that speaks for it while it is away
            return _NoAnswer("an answer that is not JSON")
        return InputError(self._stranger("it answers with a page, not with JSON"))

    def _unreached(self, error: Exception) -> Exception:
        reason = getattr(error, "reason", None)
        text = self.clean(reason if isinstance(reason, str) else error)
        text = re.sub(r"^.* object at 0x[0-9a-f]+>: ", "", text) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return InputError(
                f"--host {self.host}: its certificate is not trusted ({text}); "
                "SSL_CERT_FILE may name a file with its authority's certificate"
            )
        if self._met or isinstance(error, ProtocolError | ReadTimeoutError):
            return _NoAnswer(f"no answer ({text})")
        through = f" through the proxy {self._proxy.url}" if self._proxy else ""
        return InputError(f"--host {self.host}: cannot be reached{through}: {text}")

    def _understood(self, error: ApiException, what: str, away: frozenset[int]) -> Exception:
        """What a person should read about an answer that is not 2xx."""
        status = int(error.status or 0)
        body = _json_object(error.body)
        said = (body or {}).get("message") or (body or {}).get("error") or ""
        said = self.clean(said if isinstance(said, str) else "")
        colon = f": {said}" if said else ""
        if status in away or (status == 404 and body is None and self._met):
            return _NoAnswer(f"{status} {self.clean(error.reason or '')}".strip() + colon)
        if status == 401:
            return self._unauthenticated(colon)
        if status == 403:
            who = self._token.source if self._token else "a request without a token"
            return InputError(f"{self.host}: 403: {who} may not {what}{colon}")
        if 300 <= status < 400:
            return InputError(self._stranger("it redirects, perhaps to a login page; does it need a token?"))
        failure = f"{self.host}: {status or 'unreadable answer'}: could not {what}{colon}"
        kinds: dict[int, type[OnlineVPOError]] = {400: InputError, 404: NotThere, 409: _Exists}
        return kinds.get(status, ServerError)(failure)

    def _unauthenticated(self, colon: str) -> Exception:
        if self._token is None:
            return InputError(
                f"{self.host}: 401: it wants a token; give --token-file, or run where {TOKEN_VARIABLE} or "
                f"{POD_TOKEN} holds one{colon}"
            )
        used = self._config.api_key["authorization"]
        if self._token.read() != used:  # renewed while the request was on its way
            return _NoAnswer("401, and the token was renewed since")
        return InputError(f"{self.host}: 401: it does not accept the token of {self._token.source}{colon}")

    def _stranger(self, why: str) -> str:
        return f"--host {self.host}: not a Kubeflow Pipelines API ({why})"


def _json_object(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})


def _in(namespace: str | None) -> str:
    return f" in namespace {namespace}" if namespace else ""
