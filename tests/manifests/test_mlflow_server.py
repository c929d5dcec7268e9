"""MLflow's server, run as its manifest says: who is let in, what the probe notices, where artifacts go."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.manifests.conftest import mlflow_on, until
from tests.manifests.pods import SECRETS, Pod
from tests.manifests.rendering import named

# Each start of the server is seconds of work for two cores, many more for cores that others use too.
pytestmark = pytest.mark.timeout(900)

USER = SECRETS["onlinevpo-mlflow"]
ADMIN = ("admin", SECRETS["onlinevpo-mlflow-server"]["admin-password"])


def address(pod: Pod) -> str:
    return pod.placed("http://127.0.0.1:5000")


def health(pod: Pod, host: str) -> int:
    """What the liveness probe's request gets under a host name."""
    place = urlsplit(address(pod))
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    path = pod.container("mlflow")["livenessProbe"]["httpGet"]["path"]
    connection.request("GET", path, headers={"Host": host})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    "uri",
    [
        "http://mlflow:5000",
        "http://mlflow",
        "http://mlflow.onlinevpo:5000",
        "http://mlflow.onlinevpo.svc:5000",
        "http://mlflow.onlinevpo.svc.cluster.local:5000",
        "http://localhost:5000",
    ],
)
def test_clients_may_call_it_by_each_of_its_names(mlflow_pod: Pod, uri: str) -> None:
    assert mlflow_pod.probe("mlflow", MLFLOW_TRACKING_URI=uri).stdout == ""


@pytest.mark.parametrize("uri", ["http://mlflow.evil.example:5000", "http://other:5000"])
def test_the_probe_notices_a_host_that_is_refused(mlflow_pod: Pod, uri: str) -> None:
    found = mlflow_pod.probe("mlflow", MLFLOW_TRACKING_URI=uri)
    assert found.returncode == 1
    assert found.stdout.startswith("HTTP 403")
    assert health(mlflow_pod, urlsplit(uri).netloc) == 200  # which is why the probe does not ask /health


def test_the_probe_notices_a_wrong_password_and_a_server_that_is_not_there(mlflow_pod: Pod) -> None:
    assert mlflow_pod.probe("mlflow", MLFLOW_TRACKING_PASSWORD="wrong").stdout.startswith("HTTP 401")
    words = mlflow_pod.command(mlflow_pod.container("mlflow")["readinessProbe"]["exec"]["command"], "mlflow")
    done = subprocess.run(
        [*words[:-1], "http://127.0.0.1:1"],
        env=mlflow_pod.environment("mlflow"),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.split(":")[0]) == (1, "ConnectionRefusedError")


def test_the_steps_user_can_track_and_register_but_is_no_administrator(
    mlflow_pod: Pod, store_pod: Pod, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", USER["password"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)  # artifacts pass through the server: a client needs no keys
    client = MlflowClient(address(mlflow_pod))
    run = client.create_run(client.create_experiment("onlinevpo"))
    (tmp_path / "report.html").write_text("<p>")
    client.log_artifact(run.info.run_id, str(tmp_path / "report.html"))
    bucket = Path(store_pod.placed("/data")) / "onlinevpo" / "mlflow"
    assert [p.read_text() for p in bucket.rglob("report.html")] == ["<p>"]
    client.create_registered_model("generator")
    version = client.create_model_version(
        "generator", f"{run.info.artifact_uri}/model", run.info.run_id
    ).version
    client.set_registered_model_alias("generator", "champion", version)
    assert client.get_registered_model("generator").aliases == {"champion": version}

    create = {"username": "person", "password": "person0123456789"}
    users = f"{address(mlflow_pod)}/api/2.0/mlflow/users/create"
    assert (
        requests.post(users, json=create, auth=(USER["username"], USER["password"]), timeout=30).status_code
        == 403
    )
    assert requests.post(users, json=create, auth=ADMIN, timeout=30).status_code == 200
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", create["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", create["password"])
    person = MlflowClient(address(mlflow_pod))
    assert person.get_run(run.info.run_id).info.run_id == run.info.run_id
    with pytest.raises(Exception, match=r"403|PERMISSION_DENIED|Permission denied"):
        person.delete_registered_model_alias("generator", "champion")


def test_a_changed_secret_takes_effect_with_the_next_start(mlflow_pod: Pod) -> None:
    printed = mlflow_pod.run("prepare", MLFLOW_TRACKING_PASSWORD="fresh0123456789")
    assert [line for line in printed.splitlines() if line.startswith("user ")] == [
        "user pipeline: password changed"
    ]
    assert mlflow_pod.probe("mlflow", MLFLOW_TRACKING_PASSWORD="fresh0123456789").returncode == 0
    assert "user pipeline: password changed" in mlflow_pod.run("prepare")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"MLFLOW_TRACKING_PASSWORD": ""}, "MLFLOW_TRACKING_PASSWORD is not set or empty"),
        ({"MLFLOW_TRACKING_USERNAME": "admin"}, "must be another"),
    ],
)
def test_prepare_refuses_what_cannot_be_meant(mlflow_pod: Pod, changed: dict[str, str], said: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        mlflow_pod.run("prepare", **changed)
    assert said in caught.value.stderr


def test_the_server_has_the_settings_that_matter(mlflow_pod: Pod) -> None:
    arguments = mlflow_pod.container("mlflow")["args"]
    assert "--app-name=basic-auth" in arguments
    assert "--disable-security-middleware" not in arguments
    hosts = named(mlflow_pod.objects, "ConfigMap", "onlinevpo")["data"]["mlflow-allowed-hosts"].split(",")
    assert not [h for h in hosts if h.endswith(".*") or h == "*"]
    assert mlflow_pod.template["spec"]["enableServiceLinks"] is False


class Database:
    """A PostgreSQL of this machine's own, with the password of the manifests' secret.

    Args:
        programs: folder of initdb and pg_ctl.
        folder: for its files; belongs to the user postgres if this is root, whom the server refuses.
        port: it listens on, on the loopback address.
    """

    def __init__(self, programs: Path, folder: Path, port: int) -> None:
        self.programs, self.folder, self.port = programs, folder, port

    def make(self) -> None:
        password = self.folder / "password"
        password.write_text(SECRETS["onlinevpo-postgres"]["password"])
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
            shutil.chown(password, "postgres")
        self._call("initdb", "--username=mlflow", f"--pwfile={password}", "--auth=scram-sha-256")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self._call("pg_ctl", "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-m", "immediate", "stop")

    def _call(self, program: str, *words: str) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*user, str(self.programs / program), "-D", str(self.folder / "data"), *words]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL)


@pytest.fixture
def database(free_port: int) -> Iterator[Database]:
    pytest.importorskip("psycopg2", reason="no psycopg2: `pip install psycopg2-binary`")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not installed:
        pytest.skip("no PostgreSQL server on this machine: `apt-get install postgresql`")
    # Not pytest's own folder, which nobody but its user may enter.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = Database(installed[-1].parent, Path(folder), free_port)
        found.make()
        found.start()
        yield found
        found.stop()


@pytest.mark.slow
def test_on_postgresql_it_notices_a_lost_database_and_recovers(
    database: Database, store_pod: Pod, tmp_path: Path
) -> None:
    uri = f"postgresql+psycopg2://mlflow@127.0.0.1:{database.port}/postgres"
    with mlflow_on(uri, 2, store_pod, tmp_path) as pod:
        assert "password changed" not in pod.run("prepare")
        database.stop()
        lost = pod.probe("mlflow")
        assert (lost.returncode, lost.stdout[:8]) == (1, "HTTP 503")
        assert health(pod, "mlflow:5000") == 200
        database.start()
        until(lambda: pod.probe("mlflow").returncode == 0, pod, 30)
