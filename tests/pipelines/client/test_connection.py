"""Token, address, proxy, and a server that is away."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipelines.client import token as bearer_module
from tests.pipelines.client.conftest import TOKEN
from tests.pipelines.client.kfp_server import KfpServer, Trouble
from tests.pipelines.client.submitting import Caller


def only_run(server: KfpServer) -> dict[str, Any]:
    (run,) = server.runs.values()
    return run


def self_signed(folder: Path) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(private + certificate.public_bytes(pem))
    return file


# Tokens


def test_without_a_token_the_server_says_401(caller: Caller) -> None:
    caller.server.token = TOKEN
    end = caller.submit()
    assert end.code == 2
    assert "401: it wants a token; give --token-file" in end.error


def test_a_wrong_token_is_named_by_its_source_only(caller: Caller, tmp_path: Path) -> None:
    caller.server.token = TOKEN
    (tmp_path / "stale").write_text("stale-and-secret")
    end = caller.submit(token_file=tmp_path / "stale")
    assert end.code == 2
    assert f"401: it does not accept the token of --token-file {tmp_path / 'stale'}" in end.error
    assert "stale-and-secret" not in end.error + end.err
    assert caller.time.sleeps == []


@pytest.mark.parametrize("where", ["variable", "pod"])
def test_a_pod_has_its_own_token(
    caller: Caller, token_file: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "variable":
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token_file))
    else:
        monkeypatch.setattr(bearer_module, "POD_TOKEN", token_file)
    assert caller.submit().code == 0
    assert {r.headers.get("authorization") for r in caller.server.requests} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b" \n", "is empty"),
        (b"secret\nsecret-2", "more than one word"),
        (b"\xff\xfesecret", "is not text"),
    ],
)
def test_a_token_file_that_holds_no_token(
    caller: Caller, tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "bad"
    if content is not None:
        file.write_bytes(content)
    end = caller.submit(token_file=file)
    assert end.code == 2
    assert end.error.startswith(f"error: --token-file {file}: ")
    assert says in end.error and "secret" not in end.error
    assert caller.server.requests == []


def test_a_token_is_not_repeated_after_the_server(caller: Caller, token_file: Path) -> None:
    caller.server.troubles = [Trouble("POST .*/runs$", "quote")]
    end = caller.submit(token_file=token_file)
    assert end.code == 1
    assert "Bearer ***" in end.error
    assert TOKEN not in end.error + end.err


def test_a_password_in_the_url_is_not_accepted_nor_repeated(caller: Caller) -> None:
    end = caller.submit(host="https://me:hunter2@kubeflow.example")
    assert end.code == 2
    assert "hunter2" not in end.error


# Servers that are not there, not it, or not quite well


@pytest.mark.parametrize(
    "host", ["kubeflow.example", "ftp://kubeflow.example", "http://", "http://[::1", "http://a:b"]
)
def test_a_host_must_be_a_url(caller: Caller, host: str) -> None:
    end = caller.submit(host=host)
    assert end.code == 2
    assert "must be a URL such as" in end.error


def test_nobody_at_that_address(caller: Caller, free_port: int) -> None:
    for host in (f"http://127.0.0.1:{free_port}", "http://nobody.invalid"):
        end = caller.submit(host=host)
        assert end.code == 2
        assert end.error.startswith(f"error: --host {host}: cannot be reached: ")
        assert "0x" not in end.error
    assert caller.time.sleeps == []


def test_a_server_without_tls(caller: Caller) -> None:
    end = caller.submit(host=caller.server.host.replace("http:", "https:"))
    assert end.code == 2
    assert "cannot be reached: SSLError" in end.error


def test_a_server_with_a_certificate_of_its_own_authority(
    caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    certificate = self_signed(tmp_path)
    caller.server.stop()
    caller.server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    caller.server.tls.load_cert_chain(certificate)
    caller.server.start()
    end = caller.submit()
    assert end.code == 2
    assert "its certificate is not trusted" in end.error and "SSL_CERT_FILE" in end.error
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert caller.submit().code == 0


@pytest.mark.parametrize(
    ("kind", "says"),
    [("page", "with a page"), ("redirect", "login page"), (404, "404 for /apis/v2beta1/healthz")],
)
def test_something_else_lives_there(caller: Caller, kind: int | str, says: str) -> None:
    caller.server.troubles = [Trouble("healthz", kind)]
    end = caller.submit()
    assert end.code == 2
    assert "not a Kubeflow Pipelines API" in end.error and says in end.error
    assert caller.server.lines() == ["GET /apis/v2beta1/healthz"]


def test_something_that_speaks_no_http(caller: Caller) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host = f"http://127.0.0.1:{listener.getsockname()[1]}"
        end = caller.submit(host=host, polling=caller.time.polling(request_timeout=0.05, give_up_after=3.0))
    assert end.code == 75
    assert "no answer" in end.error and "if run onlinevpo-" in end.error


CALLS = ("GET .*healthz", "GET .*experiments", "POST .*experiments", "POST .*runs")


@pytest.mark.parametrize(
    ("call", "kind"),
    # A page at first sight is no gateway's excuse, it means another kind of server.
    [
        (call, kind)
        for call in CALLS
        for kind in (503, 429, "reset", "page")
        if (call, kind) != (CALLS[0], "page")
    ],
)
def test_a_server_that_is_away_for_a_while(caller: Caller, call: str, kind: int | str) -> None:
    caller.server.troubles = [Trouble(call, kind, times=3)]
    end = caller.submit()
    assert end.code == 0
    assert len(end.out) == 1 and only_run(caller.server)["run_id"] in end.out[0]
    away, back = end.err.splitlines()
    assert "trying again for up to" in away
    assert "answers again, after" in back
    assert len(caller.time.sleeps) == 3
    assert all(0.5 <= pause <= 31 for pause in caller.time.sleeps)


@pytest.mark.parametrize("call", ["POST .*experiments", "POST .*runs"])
def test_what_was_created_though_the_answer_was_lost_is_not_created_twice(caller: Caller, call: str) -> None:
    caller.server.troubles = [Trouble(call, "lost", times=1)]
    end = caller.submit()
    assert end.code == 0
    assert len(caller.server.experiments) == 1
    assert end.out == [f"{caller.server.host}/#/runs/details/{only_run(caller.server)['run_id']}"]


def test_a_server_that_stays_away(caller: Caller) -> None:
    caller.server.troubles = [Trouble("POST .*runs", 503, times=10_000)]
    end = caller.submit(name="nightly", polling=caller.time.polling(give_up_after=200.0))
    assert end.code == 75
    assert "503" in end.error and "if run nightly did not start, run the same command again" in end.error
    assert 200 <= caller.time.now <= 250
    assert len(caller.time.sleeps) < 30
    assert end.out == []


def through(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """An environment with these proxy variables and no other."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_the_environments_proxy_is_asked(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in plays the proxy: the host's name has no address, so an answer came through it."""
    through(monkeypatch, HTTP_PROXY=caller.server.host.replace("://", "://ada:s3cret@"))
    end = caller.submit(host="http://kubeflow.invalid")
    assert end.code == 0, end.error
    assert end.out[0].startswith("http://kubeflow.invalid/#/runs/details/")
    sent = caller.server.requests[0].headers
    assert sent["host"] == "kubeflow.invalid"
    assert sent["proxy-authorization"] == f"Basic {base64.b64encode(b'ada:s3cret').decode()}"


@pytest.mark.parametrize("exempt", ["kubeflow.invalid", ".invalid", "x,kubeflow.invalid:80", "*"])
def test_a_host_in_no_proxy_is_asked_directly(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    through(monkeypatch, HTTP_PROXY=caller.server.host, NO_PROXY=exempt)
    end = caller.submit(host="http://kubeflow.invalid:80")
    assert end.code == 2 and "http://kubeflow.invalid:80: cannot be reached: " in end.error
    assert caller.server.requests == []


def test_this_machine_and_another_scheme_are_asked_directly(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(monkeypatch, HTTP_PROXY="http://127.0.0.1:9", ALL_PROXY="http://127.0.0.1:9")
    assert caller.submit().code == 0
    through(monkeypatch, HTTPS_PROXY=caller.server.host)
    assert "cannot be reached: " in caller.submit(host="http://kubeflow.invalid").error


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("http://ada:s3cret@127.0.0.1:9", "cannot be reached through the proxy http://127.0.0.1:9: "),
        ("ada:s3cret@127.0.0.1:9", "cannot be reached through the proxy http://127.0.0.1:9"),
        ("socks5://ada:s3cret@127.0.0.1:9", "proxy socks5://127.0.0.1:9 of the environment"),
        ("http://ada:s3cret@127.0.0.1:port", "proxy http://127.0.0.1:port of the environment"),
    ],
)
def test_a_proxy_that_does_not_serve_is_named_without_its_password(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, proxy: str, said: str
) -> None:
    through(monkeypatch, HTTPS_PROXY=proxy)
    end = caller.submit(host="https://kubeflow.invalid")
    assert end.code == 2 and said in end.error, end.error
    assert "s3cret" not in end.error + end.err
