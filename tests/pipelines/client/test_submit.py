from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipelines.client import kfp_api as server_module
from pipelines.client import token as bearer_module
from tests.pipelines.kfp_server import KfpServer, Look, Refusal, Task, Trouble, conform, serving
from tests.pipelines.submitting import STEPS, Caller, compiled_text

TOKEN = "eyJhbGciOi.c2VjcmV0.tokentokentoken"


@pytest.fixture(autouse=True)
def _outside_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KF_PIPELINES_SA_TOKEN_PATH", "KF_PIPELINES_UI_ENDPOINT", "KFP_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(bearer_module, "POD_TOKEN", tmp_path / "no-token")
    monkeypatch.setattr(server_module, "POD_NAMESPACE", tmp_path / "no-namespace")


@pytest.fixture
def kfp_server() -> Iterator[KfpServer]:
    with serving() as server:
        yield server


@pytest.fixture
def caller(kfp_server: KfpServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Caller:
    (tmp_path / "pipeline.yaml").write_text(compiled_text())
    return Caller(kfp_server, capsys, tmp_path / "pipeline.yaml")


@pytest.fixture
def token_file(kfp_server: KfpServer, tmp_path: Path) -> Path:
    """A file with the token that the server wants."""
    kfp_server.token = TOKEN
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return tmp_path / "token"


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


def caching(run: dict[str, Any]) -> dict[str, bool]:
    """Whether each task of a submitted pipeline may take an earlier result."""
    spec = run["pipeline_spec"]["pipeline_spec"]
    return {
        name: bool(task.get("cachingOptions", {}).get("enableCache"))
        for component in (spec["root"], *spec["components"].values())
        for name, task in component.get("dag", {}).get("tasks", {}).items()
    }


# What is submitted


def test_the_url_is_all_that_is_printed_and_the_run_is_what_was_asked_for(caller: Caller) -> None:
    end = caller.submit(experiment="trials", service_account="robot")
    run = only_run(caller.server)
    assert (end.code, end.err) == (0, "")
    assert end.out == [f"{caller.server.host}/#/runs/details/{run['run_id']}"]
    pipeline, platform = yaml.safe_load_all(compiled_text())
    assert run["pipeline_spec"] == {"pipeline_spec": pipeline, "platform_spec": platform}
    assert run["service_account"] == "robot"
    assert run["runtime_config"] == {"parameters": {}}
    assert caller.server.experiments[run["experiment_id"]]["display_name"] == "trials"
    date = re.fullmatch(r"onlinevpo-(\d{8}-\d{6})", run["display_name"])
    assert date is not None
    then = datetime.datetime.strptime(date[1] + "+0000", "%Y%m%d-%H%M%S%z")
    assert abs(datetime.datetime.now(datetime.UTC) - then) < datetime.timedelta(minutes=5)


def test_a_name_of_ones_own_and_an_experiment_that_is_there(caller: Caller) -> None:
    there = caller.server.add_experiment("trials")
    caller.server.add_experiment("trials-2")
    assert caller.submit(experiment="trials", name="the third try").code == 0
    run = only_run(caller.server)
    assert (run["display_name"], run["experiment_id"]) == ("the third try", there)
    assert caller.server.lines("POST.*experiments") == []


def test_an_archived_experiment_is_not_filled_in_secret(caller: Caller) -> None:
    caller.server.add_experiment("old", storage_state="ARCHIVED")
    end = caller.submit(experiment="old")
    assert end.code == 2
    assert "experiment old is archived" in end.error
    assert caller.server.runs == {}


def test_caching_is_as_compiled_or_off_in_every_task(caller: Caller) -> None:
    caller.submit()
    compiled = caching(only_run(caller.server))
    assert compiled["corpus"] and not compiled["registry"]
    caller.server.runs.clear()
    caller.submit(cache=False)
    off = caching(only_run(caller.server))
    assert off.keys() == compiled.keys() >= set(STEPS)
    assert not any(off.values())


def test_the_ui_may_live_elsewhere(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example/pipeline/")
    end = caller.submit(host=caller.server.host + "/")
    run = only_run(caller.server)["run_id"]
    assert end.out == [f"https://kubeflow.example/pipeline/#/runs/details/{run}"]


# Namespaces


def test_on_a_server_with_many_namespaces_one_is_needed(caller: Caller, token_file: Path) -> None:
    caller.server.multi_user = True
    end = caller.submit(token_file=token_file)
    assert end.code == 2
    assert "--namespace must name yours" in end.error
    assert caller.submit(token_file=token_file, namespace="team-a").code == 0
    experiment = caller.server.experiments[only_run(caller.server)["experiment_id"]]
    assert experiment["namespace"] == "team-a"


def test_in_a_pod_its_own_namespace_is_taken(
    caller: Caller, token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller.server.multi_user = True
    (tmp_path / "namespace").write_text("team-a")
    monkeypatch.setattr(server_module, "POD_NAMESPACE", tmp_path / "namespace")
    assert caller.submit(token_file=token_file).code == 0


def test_where_there_is_one_namespace_the_option_is_said_to_do_nothing(caller: Caller) -> None:
    end = caller.submit(namespace="team-a")
    assert end.code == 0
    assert "--namespace team-a has no effect" in end.err


def test_a_namespace_that_is_not_ours(caller: Caller, token_file: Path) -> None:
    caller.server.multi_user = True
    end = caller.submit(token_file=token_file, namespace="team-b")
    assert end.code == 2
    assert f"403: --token-file {token_file} may not list experiments in namespace team-b" in end.error
    assert "Unauthorized access to namespace team-b" in end.error


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


def test_an_interrupt_before_the_run_exists(caller: Caller) -> None:
    caller.server.troubles = [Trouble("POST .*runs", 503, times=10_000)]
    caller.time.then = {2: lambda: os.kill(os.getpid(), signal.SIGINT)}
    end = caller.submit(name="nightly", wait=True, on_interrupt="cancel")
    assert end.code == 75
    assert end.error == "interrupted: stopped; if run nightly did not start, run the same command again"


def test_a_refused_pipeline_is_not_tried_again(caller: Caller) -> None:
    caller.server.troubles = [Trouble("POST .*runs", 400), Trouble("POST .*runs", 500)]
    first, second = caller.submit(), caller.submit()
    assert (first.code, second.code) == (2, 1)
    assert "400: could not create a run: scripted 400" in first.error
    assert "500: could not create a run: scripted 500" in second.error
    assert caller.time.sleeps == []


# What is wrong before anybody is asked


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no documents with pipelineInfo"),
        ("[1, 2]", "no documents with pipelineInfo"),
        ("{a: [", "not readable as YAML"),
        ("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n", "no documents with pipelineInfo"),
        ("pipelineInfo: {name: x}\nroot: {dag: 3}\n", "not a compiled pipeline"),
        ("pipelineInfo: {}\nroot: {}\nschemaVersion: 2.1.0\n", "must have a pipelineInfo.name and tasks"),
    ],
)
def test_a_file_that_is_no_compiled_pipeline(caller: Caller, text: str, says: str) -> None:
    caller.pipeline.write_text(text)
    end = caller.submit()
    assert end.code == 2
    assert str(caller.pipeline) in end.error and says in end.error
    assert caller.server.requests == []


def test_a_missing_file(caller: Caller) -> None:
    caller.pipeline.unlink()
    assert caller.submit().code == 2


def test_a_pipeline_with_faults_is_refused(caller: Caller) -> None:
    caller.pipeline.write_text(compiled_text().replace(f"@sha256:{'5' * 64}", ":latest"))
    end = caller.submit()
    assert end.code == 3
    assert end.error.startswith("refused: ")
    assert caller.server.requests == []


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"on_interrupt": "maybe"}, "--on-interrupt maybe: must be one of leave, cancel, ask"),
        ({"experiment": " "}, "--experiment ' ': must be 1 to 128 characters"),
        ({"experiment": "x" * 129}, "must be 1 to 128 characters"),
        ({"name": " "}, "--name: must not be empty"),
    ],
)
def test_a_bad_option(caller: Caller, option: dict[str, str], says: str) -> None:
    end = caller.submit(**option)
    assert end.code == 2
    assert says in end.error
    assert caller.server.requests == []


# The server of these tests, against what kfp knows of the API


def test_kfp_s_own_client_finds_the_server_in_order(
    caller: Caller, token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    caller.server.multi_user = True
    caller.server.script = [
        Look("RUNNING", {"corpus": "RUNNING"}),
        Look("SUCCEEDED", {"corpus": "SUCCEEDED"}),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = kfp.Client(host=caller.server.host, namespace="team-a", existing_token=TOKEN)
    assert client.get_kfp_healthz().multi_user is True
    experiment = client.create_experiment("by kfp")
    created = client.run_pipeline(experiment.experiment_id, "by kfp", str(caller.pipeline))
    assert client.list_runs(experiment_id=experiment.experiment_id).runs[0].run_id == created.run_id
    done = client.wait_for_run_completion(created.run_id, timeout=10, sleep_duration=0)
    assert done.state == "SUCCEEDED"
    assert {d.display_name for d in done.run_details.task_details} > {"corpus", "corpus-driver", "executor"}
    client.terminate_run(client.run_pipeline(experiment.experiment_id, "2", str(caller.pipeline)).run_id)


def test_what_the_server_sends_reads_back_through_the_api_s_models(caller: Caller) -> None:
    tasks: dict[str, Task | str] = {
        "corpus": Task("FAILED", "exit status 1", failed_attempts=1),
        "reward": "PENDING",
    }
    caller.server.script = [Look("FAILED", tasks, error="corpus failed")]
    caller.submit(wait=True)
    sent = caller.server._look(only_run(caller.server))
    api = kfp_server_api.ApiClient()
    model = api.deserialize(type("Answer", (), {"data": json.dumps(sent)}), "V2beta1Run")
    back = json.loads(json.dumps(api.sanitize_for_serialization(model)).replace("+00:00", "Z"))
    assert back == sent


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"display_name": ""}, 500),
        ({"experiment_id": "nowhere"}, 404),
        ({"experiment_id": None}, 404),
        ({"pipeline_spec": None}, 400),
        ({"pipeline_spec": {"pipelineInfo": {"name": "x"}}}, 400),
        ({"pipeline_spec": {"no": "such field"}}, 400),
        ({"pipeline_version_reference": {"pipeline_id": "x"}}, 400),
        ({"runtime_config": None}, 400),
        ({"state": "SUCCEEDED"}, 400),
        ({"no_such_field": 1}, 400),
    ],
)
def test_the_server_refuses_what_the_real_one_refuses(
    caller: Caller, change: dict[str, Any], status: int
) -> None:
    caller.submit()
    (good,) = [r.body for r in caller.server.requests if r.line == "POST /apis/v2beta1/runs"]
    body = {key: value for key, value in {**good, **change}.items() if value is not None}
    with pytest.raises(Refusal) as caught:
        caller.server._create_run(body)
    assert caught.value.status == status


def test_the_server_cannot_send_what_the_api_does_not_have() -> None:
    for bad in (
        {"exit_code": 3},
        {"state": "EXPLODED"},
        {"created_at": "yesterday"},
        {"state_history": [{"x": 1}]},
    ):
        with pytest.raises(Refusal):
            conform(bad, "V2beta1Run")


def through(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """An environment with these proxy variables and no other."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_the_environments_proxy_is_asked(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in plays the proxy: the host's name leads nowhere, so an answer came through it."""
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
