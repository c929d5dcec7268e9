"""A server's address as a person gives it, and the HTTP proxy that the environment names on the way there."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

import urllib3
from requests.utils import get_auth_from_url, get_environ_proxies, select_proxy

from components.runtime.errors import InputError


@dataclass(frozen=True)
class Proxy:
    """A proxy: its URL without its password, and the headers that log in to it."""

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)


def checked_host(host: str) -> str:
    """`host` without a slash at its end.

    Raises:
        InputError: it is no http(s) URL, or holds a user or password.
    """
    example = "must be a URL such as https://kubeflow.example/pipeline"
    try:
        parts = urlsplit(host.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
    except ValueError:
        raise InputError(f"--host: {example}") from None
    if parts.username or parts.password:
        raise InputError("--host: must not hold a user or password; give a token with --token-file")
    if not usable:
        raise InputError(f"--host {host}: {example}")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def proxy_for(url: str) -> Proxy | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY name for `url`; None where NO_PROXY exempts it.

    Names, ports and address ranges (CIDR) of NO_PROXY are read as requests reads them, and so as MLflow and
    pip do on the same machine. This machine itself, such as a port-forward, is never asked through a proxy,
    which would ask its own.

    Raises:
        InputError: the proxy is no http(s) URL.
    """
    if on_this_machine(urlsplit(url).hostname or ""):
        return None
    named = select_proxy(url, get_environ_proxies(url, no_proxy=None))
    if not named:
        return None
    proxy = named if "://" in named else f"http://{named}"
    shown = without_login(proxy)
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable:
        raise InputError(
            f"proxy {shown} of the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY): must be an http:// or "
            "https:// URL; NO_PROXY names hosts that need none"
        )
    user, password = get_auth_from_url(proxy)
    login = f"{user}:{password}" if user or password else None
    return Proxy(shown, dict(urllib3.make_headers(proxy_basic_auth=login)))


def on_this_machine(host: str) -> bool:
    """Whether a host's name or address means the machine that asks."""
    return host in ("localhost", "::1") or host.endswith(".localhost") or host.startswith("127.")


def without_login(url: str) -> str:
    """A URL without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
