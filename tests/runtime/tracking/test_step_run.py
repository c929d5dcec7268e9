from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from components.runtime.artifacts.publish import publish
from components.runtime.errors import GateRefused, Interrupted
from components.runtime.params import Section, StepParams, digest
from components.runtime.tracking import mlflow_client
from components.runtime.tracking import step_run as tracking
from components.runtime.tracking.step_run import flattened, track


class Inner(Section):
    values: list[int] = Field([1, 2], description="numbers")
    text: str = Field("x" * 2000, description="long text")


class ExampleParams(StepParams):
    rate: float = Field(0.5, description="rate")
    inner: Inner = Field(default_factory=Inner, description="more")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the module: making its tables takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def client(place: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    monkeypatch.chdir(place)
    monkeypatch.setenv("ONLINEVPO_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    monkeypatch.setenv("ONLINEVPO_RUN", request.node.name)
    mlflow = tracking.connect()
    yield mlflow.MlflowClient()
    assert mlflow.active_run() is None


def runs_of(client: Any, pipeline: str) -> tuple[Any, dict[str, Any]]:
    experiment = client.get_experiment_by_name("onlinevpo").experiment_id
    runs = client.search_runs([experiment])
    parents = [r for r in runs if r.data.tags.get("onlinevpo.pipeline") == pipeline]
    assert len(parents) == 1
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len({r.info.run_name for r in children}) == len(children)
    return parents[0], {r.info.run_name: r for r in children}


def make(out: Path, step: str, loss: float) -> None:
    with track(step, ExampleParams()) as run, publish(out, step=step, params=ExampleParams()) as workspace:
        for at in range(700):
            run.metrics({"loss": loss / (at + 1), "rate": 0.1}, at=at)
        for name in (
            "plots/deep/curve.csv",
            "clips/a.mp4",
            "report.html",
            "card.md",
            "card.json",
            "model.safetensors",
        ):
            path = workspace.dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        workspace.write_metrics({"srcc": 0.9})
    run.finish(out)


def test_one_parent_and_a_child_per_step(client: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    make(tmp_path / "a", "reward", 1.0)
    make(tmp_path / "b", "alignment", 2.0)
    parent, children = runs_of(client, request.node.name)
    assert set(children) == {"reward", "alignment"}
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"reward.srcc": 0.9, "alignment.srcc": 0.9}
    run = children["reward"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["srcc"] == 0.9
    assert run.data.params["rate"] == "0.5"
    assert run.data.params["run.seed"] == "0"
    assert run.data.params["inner.values"] == "[1, 2]"
    assert len(run.data.params["inner.text"]) == 500
    assert run.data.tags["onlinevpo.params_digest"] == digest(ExampleParams())
    assert run.data.tags["onlinevpo.outcome"] == "done"
    history = client.get_metric_history(run.info.run_id, "curve/loss")
    assert [(m.step, m.value) for m in history] == [(at, 1.0 / (at + 1)) for at in range(700)]
    listed = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert listed == {
        "plots",
        "clips",
        "report.html",
        "card.md",
        "card.json",
        "manifest.json",
        "metrics.json",
    }
    local = Path(client.download_artifacts(run.info.run_id, "plots/deep/curve.csv"))
    assert local.read_text() == "plots/deep/curve.csv"


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (GateRefused("too low"), "FAILED", "refused"),
        (Interrupted(), "KILLED", "interrupted"),
        (RuntimeError("bug"), "FAILED", "failed"),
    ],
)
def test_how_a_step_ended(
    error: Exception, status: str, outcome: str, client: Any, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(type(error)), track("reward", ExampleParams()):
        raise error
    parent, children = runs_of(client, request.node.name)
    assert (parent.info.status, children["reward"].info.status) == (status, status)
    assert children["reward"].data.tags["onlinevpo.outcome"] == outcome
    assert str(error) in children["reward"].data.tags["onlinevpo.reason"]


def test_a_resumed_step_goes_on_with_its_run(client: Any, request: pytest.FixtureRequest) -> None:
    with pytest.raises(Interrupted), track("reward", ExampleParams()) as first:
        raise Interrupted
    with track("reward", ExampleParams()) as second:
        parent, _ = runs_of(client, request.node.name)
        assert parent.info.status == "RUNNING"
    assert first.run_id == second.run_id
    with track("other", ExampleParams(rate=0.7)) as third:
        pass
    assert third.run_id != first.run_id


def test_a_refused_result_is_logged_with_its_card(
    client: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with (
        pytest.raises(GateRefused),
        track("reward", ExampleParams()),
        publish(tmp_path / "a", step="reward", params=ExampleParams()) as workspace,
    ):
        workspace.write_metrics({"srcc": 0.1})
        workspace.publish_on_refusal = True
        raise GateRefused("too low")
    _, children = runs_of(client, request.node.name)
    assert children["reward"].data.metrics == {"srcc": 0.1}


def test_a_given_run_is_used(client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    experiment = client.create_experiment("somebody else's")
    given = client.create_run(experiment, run_name="task").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    with track("reward", ExampleParams()) as run:
        assert run.run_id == given
        run.metrics({"loss": 1.0}, at=3)
    found = client.get_run(given)
    assert found.data.metrics == {"curve/loss": 1.0}
    assert found.info.status == "FINISHED"
    assert "mlflow.parentRunId" not in found.data.tags
    assert len(client.search_runs([experiment])) == 1


def test_without_a_pipeline_there_is_no_parent(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONLINEVPO_RUN")
    with track("reward", ExampleParams()) as run:
        pass
    assert "mlflow.parentRunId" not in client.get_run(run.run_id).data.tags


def test_default_place_is_a_database_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("ONLINEVPO_TRACKING", "on")
    assert tracking.tracking_uri() == "sqlite:///mlflow.db"
    with track("reward", ExampleParams()) as run:
        assert run.run_id
    assert not (place / "mlruns" / ".trash").exists()


@pytest.mark.parametrize(
    "uri", ["sqlite:////proc/none/mlflow.db", "http://127.0.0.1:9", "file:///tmp/x", "nonsense"]
)
def test_failing_tracking_warns_once_and_the_step_goes_on(
    uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONLINEVPO_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        track("reward", ExampleParams()) as run,
        publish(tmp_path / "a", step="reward", params=ExampleParams()) as workspace,
    ):
        run.metrics({"loss": 1.0}, at=1)
        workspace.write_metrics({"srcc": 0.5})
    assert run.run_id is None
    warnings = [x for x in capsys.readouterr().err.splitlines() if x.startswith("warning: tracking")]
    assert len(warnings) == 1
    if uri.startswith("sqlite"):
        assert "no database can be kept there" in warnings[0]


def test_a_store_that_fails_midway_costs_one_warning(
    client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    with track("reward", ExampleParams()) as run:

        def broken(*_: object, **__: object) -> None:
            raise OSError("database is locked")

        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", broken)
        for at in range(2000):
            run.metrics({"loss": 1.0}, at=at)
    monkeypatch.undo()
    assert run.run_id is not None
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert capsys.readouterr().err.count("warning: tracking") == 1


def test_a_final_figure_and_a_curve_of_one_name_are_two_metrics(client: Any, tmp_path: Path) -> None:
    with (
        track("alignment", ExampleParams()) as run,
        publish(tmp_path / "a", step="alignment", params=ExampleParams()) as workspace,
    ):
        for at in range(3):
            run.metrics({"clips": 48.0, "accuracy": 1.0}, at=at)
        workspace.write_metrics({"clips": 144.0, "accuracy": 0.816})
    figures = json.loads((tmp_path / "a" / "metrics.json").read_text())
    logged = client.get_run(run.run_id).data.metrics
    assert {name: logged[name] for name in figures} == figures
    for name in figures:
        assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, name)] == [
            (0, figures[name])
        ]
        assert [m.step for m in client.get_metric_history(run.run_id, f"curve/{name}")] == [0, 1, 2]


TOGETHER = """
import sys, time
import mlflow, sqlalchemy
from components.runtime.params import StepParams
from components.runtime.tracking.step_run import track
print("ready", flush=True)
sys.stdin.readline()
with track(sys.argv[1], StepParams()) as run:
    print(run.run_id, flush=True)
"""


def test_first_runs_started_together_are_all_tracked_under_one_parent(
    tmp_path: Path, repository: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    environment = {
        **os.environ,
        **{"ONLINEVPO_TRACKING": "on", "ONLINEVPO_RUN": "together", "MLFLOW_TRACKING_URI": uri},
        "PYTHONPATH": str(repository),
    }
    steps = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, f"step{number}"], cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(4)
    ]  # fmt: skip
    for step in steps:
        assert step.stdout is not None and step.stdout.readline() == "ready\n"
    for step in steps:
        assert step.stdin is not None
        step.stdin.write("\n")
        step.stdin.flush()
    said = [step.communicate(timeout=120) for step in steps]
    assert all(error == "" and out.strip() not in ("", "None") for out, error in said), said
    client = mlflow_client.connect(uri).MlflowClient(uri)
    experiment = client.get_experiment_by_name("onlinevpo").experiment_id
    runs = client.search_runs([experiment])
    (parent,) = (run for run in runs if "onlinevpo.pipeline" in run.data.tags)
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs if run is not parent} == {
        parent.info.run_id
    }
    assert len(runs) == 5


def test_a_parent_made_at_the_same_moment_elsewhere_is_joined(
    client: Any, request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    with track("reward", ExampleParams()) as run:
        # What another process's clock says is earlier: both must come to the same of the two.
        experiment = client.get_run(run.run_id).info.experiment_id
        older = client.create_run(experiment, start_time=1, tags={"onlinevpo.pipeline": name}).info.run_id
    assert client.get_run(run.run_id).data.tags["mlflow.parentRunId"] == older
    with track("alignment", ExampleParams()) as later:
        pass
    assert client.get_run(later.run_id).data.tags["mlflow.parentRunId"] == older


def test_an_experiment_made_at_the_same_moment_elsewhere_is_used(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "made twice")
    ask = type(client).get_experiment_by_name

    def late(self: Any, name: str) -> Any:
        monkeypatch.setattr(type(client), "get_experiment_by_name", ask)
        self.create_experiment(name)  # the other process, after this one has looked
        return None

    monkeypatch.setattr(type(client), "get_experiment_by_name", late)
    with track("reward", ExampleParams()) as run:
        assert run.run_id is not None
    experiment = client.get_run(run.run_id).info.experiment_id
    assert client.get_experiment(experiment).name == "made twice"


def test_a_deleted_experiment_is_told_with_its_remedy_and_the_step_goes_on(
    client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "deleted")
    number = client.create_experiment("deleted")
    client.delete_experiment(number)
    with track("reward", ExampleParams()) as run:
        assert run.run_id is None
    assert f"`mlflow experiments restore -x {number}`" in capsys.readouterr().err


def test_an_experiment_of_dvc_in_a_temporary_folder_tracks_into_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    temporary = project / ".dvc" / "tmp" / "exps" / "standalone" / "tmpx"
    temporary.mkdir(parents=True)
    monkeypatch.chdir(temporary)
    monkeypatch.setenv("ONLINEVPO_TRACKING", "on")
    monkeypatch.setenv("DVC_ROOT", str(project))  # as DVC sets it for the commands of stages
    with (
        track("reward", ExampleParams()) as run,
        publish(temporary / "a", step="reward", params=ExampleParams()) as workspace,
    ):
        workspace.write_metrics({"srcc": 0.5})
    monkeypatch.chdir(project)
    shutil.rmtree(project / ".dvc")  # DVC removes the temporary folder with all that is in it
    uri = f"sqlite:///{project}/mlflow.db"
    client = mlflow_client.connect(uri).MlflowClient(uri)
    assert client.get_run(run.run_id).data.metrics == {"srcc": 0.5}
    assert json.loads(Path(client.download_artifacts(run.run_id, "metrics.json")).read_text())["srcc"] == 0.5
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it by itself
    assert tracking.tracking_uri() == "sqlite:///mlflow.db"


def test_a_long_reason_is_shortened_at_a_word_and_says_so(client: Any) -> None:
    reason = " ".join(f"rule{number}" for number in range(2000))
    with pytest.raises(GateRefused), track("reward", ExampleParams()) as run:
        raise GateRefused(reason)
    kept = client.get_run(run.run_id).data.tags["onlinevpo.reason"]
    words, _, note = kept.removeprefix("GateRefused: ").partition(" ... ")
    assert len(kept) <= 5000 and note.startswith("(") and note.endswith(" characters)")
    assert words.split() == reason.split()[: len(words.split())]


def test_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with track("reward", ExampleParams()) as run:
        run.metrics({"loss": 1.0})
    assert run.run_id is None
    assert os.listdir(tmp_path) == []


def test_only_the_main_process_tracks(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with track("reward", ExampleParams()) as run:
        assert run.run_id is None


def test_flattened() -> None:
    assert flattened({"a": {"b": 1, "c": {}}, "d": [1, "x"], "e": None, "f": True}) == {
        "a.b": "1",
        "a.c": "{}",
        "d": '[1, "x"]',
        "e": "null",
        "f": "true",
    }
