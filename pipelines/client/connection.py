"""Requests to a Kubeflow Pipelines server: token, proxy, retries, and every failure as one line.

Requests go through the client that kfp generates from the API (kfp_server_api), not `kfp.Client` around it:
that one has no time limit on a request, asks an unreachable host for half a minute with tracebacks, prints to
stdout, and writes the namespace it finds into the user's home.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import kfp_server_api
from kfp_server_api import ApiException
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from components.runtime.errors import InputError, Interrupted, OnlineVPOError
from components.runtime.progress import duration
from pipelines.client.address import checked_host, proxy_for
from pipelines.client.token import POD_TOKEN, TOKEN_VARIABLE, Token

_AWAY = frozenset({408, 429, 502, 503, 504})
_FIRST_ANSWER_S = 60.0  # a host that has never answered may simply be the wrong one
_LONGEST_MESSAGE = 400


@dataclass(frozen=True)
class PollingPolicy:
    """How often a run is looked at, and how long a server may be away; all in seconds.

    Attributes:
        interval: between two looks at a run.
        heartbeat: a line at least this often while nothing changes.
        give_up_after: how long a server that has answered before may fail to answer.
        request_timeout: of one request.
        max_backoff: longest wait between two attempts at a request; up to one second is added.
        sleep: waits that many seconds.
        clock: monotonic seconds.
    """

    interval: float = 5.0
    heartbeat: float = 60.0
    give_up_after: float = 600.0
    request_timeout: float = 30.0
    max_backoff: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class ServerError(OnlineVPOError):
    """The server answered, and the answer is its own failure."""


class ServerUnavailable(Interrupted):
    """The server did not answer for as long as the polling policy allows."""


class NotFound(OnlineVPOError):
    """What was asked for does not exist on the server."""


class AlreadyExists(OnlineVPOError):
    """What was to be created exists."""


class _NoAnswer(Exception):
    """A failure worth another attempt."""


class Connection:
    """The connection to the server at `host`.

    Every call waits out a server that is away for a while, says so on stderr, and ends in one line.

    Args:
        host: URL of the Kubeflow Pipelines API.
        token: sent with every request, if given.
        polling: time limits.

    Raises:
        InputError: if `host` is no http(s) URL or carries a password, the environment's proxy is no such URL,
            or the token cannot be read.
    """

    def __init__(self, host: str, token: Token | None, polling: PollingPolicy) -> None:
        self.host = checked_host(host)
        self._token, self._polling = token, polling
        self._met = False
        self._silent_since: float | None = None
        config = kfp_server_api.Configuration(host=self.host)
        # Retries are `call`'s business alone, and a redirect to a login page is no answer.
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
        self.api = kfp_server_api.ApiClient(config)

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

    def _renew(self, config: kfp_server_api.Configuration) -> None:
        assert self._token is not None
        config.api_key["authorization"] = self._token.read()

    def read(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A call that changes nothing, which may therefore be repeated after a 500 too."""
        return self.call(what, function, *args, away=_AWAY | {500}, **kwargs)

    def call(
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
        began = self._polling.clock()
        give_up_after = self._polling.give_up_after
        if not self._met:
            give_up_after = min(give_up_after, _FIRST_ANSWER_S)

        def too_long(state: RetryCallState) -> bool:
            return self._polling.clock() - began >= give_up_after

        def waiting(state: RetryCallState) -> None:
            if self._silent_since is None and state.outcome is not None:
                self._silent_since = began
                why = state.outcome.exception()
                self.note(f"{self.host}: {why}; trying again for up to {duration(give_up_after)}")

        try:
            answer = Retrying(
                retry=retry_if_exception_type(_NoAnswer),
                stop=too_long,
                wait=wait_exponential(multiplier=0.5, max=self._polling.max_backoff) + wait_random(0, 1),
                sleep=self._polling.sleep,
                before_sleep=waiting,
                reraise=True,
            )(self._once, what, function, args, kwargs, away)
        except _NoAnswer as error:
            took = duration(self._polling.clock() - began)
            raise ServerUnavailable(f"{self.host}: {error}; tried for {took}") from None
        if self._silent_since is not None:
            self.note(
                f"{self.host} answers again, after {duration(self._polling.clock() - self._silent_since)}"
            )
            self._silent_since = None
        self._met = True
        return answer

    def _once(
        self, what: str, function: Callable[..., Any], args: Any, kwargs: Any, away: frozenset[int]
    ) -> Any:
        limits = (self._polling.request_timeout, self._polling.request_timeout)
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
        self.last_object()
        return answer

    def last_object(self) -> dict[str, Any]:
        """The last answer's JSON object. The generated client makes an empty object of any web page."""
        found = _json_object(self.api.last_response.data)
        if found is None:
            raise self._no_json()
        return found

    def _no_json(self) -> Exception:
        if self._met:  # a gateway in front of it that speaks for it while it is away
            return _NoAnswer("an answer that is not JSON")
        return InputError(self.stranger("it answers with a page, not with JSON"))

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
            return InputError(self.stranger("it redirects, perhaps to a login page; does it need a token?"))
        failure = f"{self.host}: {status or 'unreadable answer'}: could not {what}{colon}"
        kinds: dict[int, type[OnlineVPOError]] = {400: InputError, 404: NotFound, 409: AlreadyExists}
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

    def stranger(self, why: str) -> str:
        """That something else answers at this host, as an error's text."""
        return f"--host {self.host}: not a Kubeflow Pipelines API ({why})"


def _json_object(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
