"""The registry's store: what is missing is mended, nothing is made by looking, and errors name it safely."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.registry.__main__ import app
from components.registry.params import RegistryParams
from components.registry.promotion_log import CANDIDATE, CHAMPION, PREVIOUS
from components.registry.step import run
from components.registry.versions.store import RegisteredModel
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.errors import InputError
from components.runtime.step import main
from tests.registry.conftest import Candidate
from tests.registry.test_two_at_once import server

PARAMS = RegistryParams.model_validate({"model": "m", "reward_model": "m-reward", "run": {"device": "cpu"}})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where the default database would be."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ONLINEVPO_TRACKING", "on")
    return folder


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("accepted", [True, False])
def test_the_step_again_touches_nothing_and_in_another_store_does_everything(
    accepted: bool,
    candidate: Candidate,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db")  # MLflow keeps stores by URI
    inputs = candidate("a", **{} if accepted else {"motion_ratio": 0.2})
    first = run(PARAMS, **inputs, out="registry")
    assert first.decision.outcome == ("accepted" if accepted else "refused")
    before, runs = stamps(here / "registry"), len(_runs())
    again = run(PARAMS, **inputs, out="registry")
    assert stamps(here / "registry") == before and len(_runs()) == runs
    assert again.decision == first.decision and again.metrics == first.metrics
    assert len(RegisteredModel("m").log.read()[1]) == 1
    assert "nothing to do" in capsys.readouterr().out

    # The same artifact beside an empty store: `make clean` and DVC's cache, a clone, another server.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/other.db")
    run(PARAMS, **inputs, out="registry")
    mended = RegisteredModel("m")
    assert mended.aliases() == ({CANDIDATE: "1", CHAMPION: "1"} if accepted else {CANDIDATE: "1"})
    assert [entry.action for entry in mended.log.read()[1]] == ["promoted" if accepted else "refused"]
    assert RegisteredModel("m-reward").aliases()[CANDIDATE] == "1"
    open_artifact("registry", step="registry")


def test_an_alias_moved_by_hand_is_moved_back(
    candidate: Candidate, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db")
    inputs = candidate("a")
    run(PARAMS, **inputs, out="registry")
    RegisteredModel("m").set_alias(CHAMPION, None)
    run(PARAMS, **inputs, out="registry")
    assert RegisteredModel("m").aliases()[CHAMPION] == "1"


@pytest.mark.parametrize(
    "words",
    [["show"], ["verify"], ["diff", "1", "2"], ["promote"], ["rollback", "--reason", "x"]],
    ids=lambda words: words[0],
)
def test_a_command_that_finds_no_database_names_it_and_makes_none(
    words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(app, words)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert f"sqlite:///{here}/mlflow.db" in said.err and "no such database" in said.err
    assert list(here.iterdir()) == []


def test_show_names_the_store_that_has_nothing(
    candidate: Candidate, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db")
    run(PARAMS, **candidate("a"), out="registry")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(app, ["show", "--set", "registry.model=another"])
    assert f"another at sqlite:///{here}/mlflow.db: no version" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("databricks", "Databricks is not supported"),
        ("localhost:5000", "did you mean http://localhost:5000?"),
        ("mlflow.example.org:443", "did you mean http://mlflow.example.org:443?"),
        ("mysql+aiomysql://u:hidden@h/d", "pip install aiomysql"),
        ("postgresql+nosuch://u:hidden@h/d", "not a database's URI"),
        ("nonsense://u:hidden@h", "nonsense"),
        ("http://[::1", "not a URI"),
        ("postgresql+psycopg2://u:hidden@127.0.0.1:9/d?sslpassword=hidden", "127.0.0.1:9 does not answer"),
    ],
)
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_a_uri_that_cannot_be_used_is_one_line_that_says_why(
    variable: str, uri: str, told: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, uri)
    with pytest.raises(InputError) as caught:
        RegisteredModel("m", create=True).versions()
    assert told in str(caught.value) and "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_neither_of_two_passwords_is_shown(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://someone:hid/d@en@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError) as caught:
        RegisteredModel("m", create=True).versions()
    assert "model registry at http://someone@127.0.0.1:9" in str(caught.value)
    assert "hid/d@en" not in str(caught.value)


def test_looking_at_a_registry_makes_no_tracking_database(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"model registry at http://127\.0\.0\.1:9"):
        RegisteredModel("m").versions()
    assert list(here.iterdir()) == []


def _runs() -> list[object]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiments = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(experiments))


def test_a_server_is_looked_at_in_the_same_way(
    candidate: Candidate,
    here: Path,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inputs = candidate("a")
    with server(here, free_port) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        run(PARAMS, **inputs, out="registry")
        capsys.readouterr()
        assert run(PARAMS, **inputs, out="registry").version == "1"
        assert "nothing to do" in capsys.readouterr().out
        (lost,) = (here / "artifacts").rglob("pytorch_lora_weights.safetensors")
        lost.unlink()
        again = run(PARAMS, **inputs, out="registry")
        assert again.version == "2" and again.decision.outcome == "accepted"
        assert "version 1 of m: 1 of its files are missing" in capsys.readouterr().out
        assert RegisteredModel("m").aliases() == {CANDIDATE: "2", CHAMPION: "2", PREVIOUS: "1"}
