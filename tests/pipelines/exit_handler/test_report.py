"""The exit handler: what it makes of Kubeflow's word and MLflow's, and what it leaves in any case."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from components.headline import HEADLINE
from components.runtime import step as step_module
from components.runtime.artifacts.publish import publish
from components.runtime.errors import GateRefused, Interrupted
from components.runtime.params import StepParams
from components.runtime.tracking import step_run as tracking
from pipelines.container import entrypoint as shim
from pipelines.exit_handler.mlflow_runs import Tracked, TrackedRun
from pipelines.exit_handler.outcome import FinalStatus, RunOutcome, judge
from pipelines.exit_handler.report import FIGURES, app, render
from pipelines.steps import STEPS, step

NAMES = [one.name for one in STEPS]


def known(*names: str, **others: str) -> dict[str, Tracked]:
    """Runs of the steps in MLflow: `names` done, `others` with that outcome."""
    done = {name: Tracked(name, f"id-{name}", "done") for name in names}
    return done | {name: Tracked(name, f"id-{name}", how, f"why {name}") for name, how in others.items()}


def states(result: RunOutcome) -> list[str]:
    return [one.state for one in result.steps]


@pytest.mark.parametrize(
    ("state", "tracked", "outcome", "reason", "expected"),
    [
        # Kubeflow's local runner, its cluster, and its older API have words of their own for the same.
        ("SUCCEEDED", known(*NAMES), "done", "", ["done"] * 6),
        ("COMPLETE", known(*NAMES), "done", "", ["done"] * 6),
        ("COMPLETE", known("registry"), "done", "", ["done"] * 6),  # the others came from the cache
        (
            "FAILED",
            known("corpus", "generator", reward="refused"),
            "refused",
            "reward: why reward",
            ["done", "done", "refused"] + ["not reached"] * 3,
        ),
        (
            "FAILED",
            known(alignment="failed"),  # what came before was taken from the cache
            "failed",
            "alignment: why alignment",
            ["done"] * 3 + ["failed"] + ["not reached"] * 2,
        ),
        (
            "FAILED",
            known("corpus", "generator", "reward", alignment=""),  # killed: its run was never closed
            "failed",
            "alignment: ended without a word: killed, evicted or out of memory",
            ["done"] * 3 + ["failed"] + ["not reached"] * 2,
        ),
        (
            "CANCELED",
            known("corpus", generator=""),
            "interrupted",
            "generator: ended without a word: killed, evicted or out of memory",
            ["done", "interrupted"] + ["not reached"] * 4,
        ),
        (
            "FAILED",
            known("corpus", "generator"),  # the next one ended before it was tracked
            "failed",
            "reward: it ended before MLflow heard of it; the log of its task says why",
            ["done", "done", "failed"] + ["not reached"] * 3,
        ),
        ("RUNNING", known(*NAMES), "done", "", ["done"] * 6),  # Kubeflow may not have caught up yet
        (
            "FAILED",
            known(*NAMES),
            "failed",
            "Kubeflow reports FAILED; yet every tracked step ended well: "
            "look at what Kubeflow did after the last one",
            ["done"] * 6,
        ),
        # A status that says well is not believed against a step that says otherwise.
        (
            "SUCCEEDED",
            known("corpus", "generator", reward="refused"),
            "refused",
            "reward: why reward",
            ["done", "done", "refused"] + ["done"] * 3,
        ),
        ("SUCCEEDED", None, "done", "", ["done"] * 6),
        ("FAILED", None, "failed", "Kubeflow reports FAILED", ["unknown"] * 6),
        ("CANCELLED", None, "interrupted", "Kubeflow reports CANCELLED", ["unknown"] * 6),
        ("NONSENSE", None, "failed", "Kubeflow reports NONSENSE", ["unknown"] * 6),
    ],
)
def test_judgement(
    state: str, tracked: dict[str, Tracked] | None, outcome: str, reason: str, expected: list[str]
) -> None:
    result = judge(FinalStatus(state), tracked)
    assert (result.state, result.reason, states(result)) == (outcome, reason, expected)


def test_refusals_stand_in_for_mlflow() -> None:
    result = judge(FinalStatus("FAILED"), None, {"reward": "too bad"})
    assert (result.state, result.reason) == ("refused", "reward: too bad")
    assert states(result) == ["done", "done", "refused"] + ["not reached"] * 3


def test_a_candidate_that_was_not_promoted_is_told() -> None:
    runs = known(*NAMES) | {
        "registry": Tracked("registry", "id", "done", metrics={"accepted": 0.0, "rules_failed": 3.0})
    }
    result = judge(FinalStatus("SUCCEEDED"), runs)
    assert result.state == "done"
    assert result.reason == "the candidate was not promoted: 3 of the registry's rules failed"


@pytest.mark.parametrize(
    ("value", "state", "message"),
    [
        ({"state": "FAILED", "pipelineTaskName": "x", "error": {"message": "boom"}}, "FAILED", "boom"),
        ({"state": "SUCCEEDED", "pipeline_task_name": "x", "error": {}}, "SUCCEEDED", ""),
        ('{"state": "COMPLETE", "error": {"code": 9}}', "COMPLETE", ""),
        (None, "UNKNOWN", ""),
        ("what", "what", ""),
        ({}, "UNKNOWN", ""),
    ],
)
def test_final_status(value: Any, state: str, message: str) -> None:
    assert FinalStatus.parse(value) == FinalStatus(state, message)


def test_the_figures_shown_exist() -> None:
    """recorded_metrics.json: the names in each metrics.json of the recorded default run."""
    recorded = json.loads(Path(__file__).with_name("recorded_metrics.json").read_text())
    assert list(FIGURES) == list(recorded) == NAMES
    for shown in (FIGURES, HEADLINE):
        for name, wanted in shown.items():
            assert set(wanted) <= set(recorded[name]), name


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag in ("script", "link", "img", "iframe"):
            self.outside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_needs_nothing_and_escapes() -> None:
    nasty = "<script>alert('x')</script> & \"quoted\""
    runs = known("corpus", "generator") | {
        "reward": Tracked("reward", "id-3", "refused", nasty, {"srcc_world": 0.51234}, 1000.0, 4725.0)
    }
    final = FinalStatus("FAILED")
    found = TrackedRun(None, "https://user:secret@mlflow.example/base/", "7", "id-parent", runs)
    page = render(nasty, final, judge(final, runs, notes=[nasty]), found)
    tags = _Tags()
    tags.feed(page)
    assert tags.open == [] and tags.outside == []
    assert "<script" not in page and page.count("&lt;script&gt;alert") >= 4
    assert "Refused by a quality gate: reward" in page and "1h02m" in page and "0.5123" in page
    assert 'href="https://mlflow.example/base/#/experiments/7/runs/id-3"' in page
    assert "secret" not in page
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"(\bsrc=|url\(|@import)", page)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking database of this module's: its first use creates the schema, which takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def mlflow(database: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """MLflow's client, on an experiment and with a pipeline run of this test's own."""
    home = Path(database.removeprefix("sqlite:///")).parent
    monkeypatch.chdir(home)
    monkeypatch.setenv("ONLINEVPO_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    monkeypatch.setenv("ONLINEVPO_RUN", "run-1")
    return tracking.connect().MlflowClient()


Finish = Callable[[str], tuple[int, str, dict[str, Any]]]


@pytest.fixture
def finish(tmp_path: Path) -> Finish:
    """Run the exit handler's command for a final state: exit code, page, what it said of its report."""

    def run(state: str) -> tuple[int, str, dict[str, Any]]:
        task = tmp_path / "run" / "finish"
        report = {"name": "report", "type": {"schemaTitle": "system.HTML"}, "uri": str(task / "report")}
        message = {
            "inputs": {"parameterValues": {"status": {"state": state, "error": {}}}},
            "outputs": {
                "artifacts": {"report": {"artifacts": [report]}},
                "outputFile": str(task / "executor_output.json"),
            },
        }
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as caught:
                step_module.main(app, ["--executor-input", json.dumps(message), "--run", "run-1"])
        finally:
            signal.signal(signal.SIGTERM, before)
        said = json.loads((task / "executor_output.json").read_text())["artifacts"]["report"]["artifacts"][0]
        assert isinstance(caught.value.code, int)
        return caught.value.code, (task / "report").read_text(), said["metadata"]

    return run


def made(name: str, folder: Path, error: BaseException | None = None) -> None:
    """Run a step as the steps do, tracked."""
    params = StepParams()
    ends = contextlib.suppress(type(error)) if error is not None else contextlib.nullcontext()
    with (
        ends,
        tracking.track(name, params),
        publish(folder / name, step=name, params=params) as workspace,
    ):
        workspace.write_metrics({"srcc_world": 0.512, "clips": 3.0})
        if error is not None:
            raise error


def runs(client: Any, experiment: str) -> dict[str, Any]:
    found = client.get_experiment_by_name(experiment)
    return {run.info.run_name: run for run in client.search_runs([found.experiment_id])}


def test_a_refused_run(mlflow: Any, finish: Finish, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    made("corpus", tmp_path)
    made("generator", tmp_path)
    made("reward", tmp_path, GateRefused("srcc_world 0.512 < 0.9"))
    code, page, said = finish("FAILED")
    assert code == 0
    assert said == {"outcome": "refused", "reason": "reward: srcc_world 0.512 < 0.9"}
    assert "reward: srcc_world 0.512 &lt; 0.9" in page
    parent = runs(mlflow, request.node.name)["run-1"]
    assert parent.info.status == "FAILED"
    assert parent.data.tags["onlinevpo.outcome"] == "refused"
    assert parent.data.tags["onlinevpo.reason"] == "reward: srcc_world 0.512 < 0.9"
    logged = mlflow.download_artifacts(parent.info.run_id, "pipeline.html")
    assert Path(logged).read_text() == page


def test_a_retry_that_went_well_counts(
    mlflow: Any, finish: Finish, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made("corpus", tmp_path, RuntimeError("a bug"))
    for name in NAMES:
        made(name, tmp_path)
    code, page, said = finish("COMPLETE")
    assert (code, said) == (0, {"outcome": "done"})
    assert "a bug" not in page
    assert runs(mlflow, request.node.name)["run-1"].info.status == "FINISHED"


def test_a_killed_step_is_closed(
    mlflow: Any, finish: Finish, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made("corpus", tmp_path)
    made("generator", tmp_path, Interrupted())
    parent = runs(mlflow, request.node.name)["run-1"].info
    tags = {"mlflow.parentRunId": parent.run_id, "onlinevpo.step": "reward"}
    killed = mlflow.create_run(parent.experiment_id, run_name="reward", tags=tags).info.run_id
    code, _, said = finish("CANCELED")
    assert (code, said["outcome"]) == (0, "interrupted")
    assert mlflow.get_run(killed).info.status == "KILLED"
    assert mlflow.get_run(parent.run_id).info.status == "KILLED"


def test_a_run_that_came_from_the_cache_is_in_mlflow_too(
    mlflow: Any, finish: Finish, request: pytest.FixtureRequest
) -> None:
    code, page, said = finish("COMPLETE")
    assert (code, said) == (0, {"outcome": "done"})
    assert "taken from the cache" in page
    assert runs(mlflow, request.node.name)["run-1"].info.status == "FINISHED"


def test_runs_that_kubeflow_tracks_itself(
    mlflow: Any,
    finish: Finish,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = mlflow.create_experiment(request.node.name)
    parent = mlflow.create_run(experiment, run_name="theirs").info.run_id
    own = mlflow.create_run(experiment, run_name="finish", tags={"mlflow.parentRunId": parent}).info.run_id
    tags = {"mlflow.parentRunId": parent, "onlinevpo.step": "corpus", "onlinevpo.outcome": "failed"}
    corpus = mlflow.create_run(experiment, tags=tags).info.run_id
    mlflow.set_terminated(corpus, "FAILED")
    monkeypatch.setenv("MLFLOW_RUN_ID", own)
    code, _, said = finish("FAILED")
    assert (code, said["outcome"]) == (0, "failed")
    assert [file.path for file in mlflow.list_artifacts(own)] == ["pipeline.html"]
    assert mlflow.get_run(parent).info.status == "RUNNING"  # Kubeflow's to close
    assert "run-1" not in runs(mlflow, request.node.name)


def test_mlflow_out_of_reach(
    finish: Finish,
    free_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ONLINEVPO_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, page, said = finish("FAILED")
    assert code == 0
    assert said == {"outcome": "failed", "reason": "Kubeflow reports FAILED"}
    assert "MLflow could not be asked what became of the steps" in page
    assert page.count(">unknown<") == len(NAMES)


def test_tracking_off_with_a_refusal_beside_the_steps_output(finish: Finish, tmp_path: Path) -> None:
    shim.remember_refusal(str(tmp_path / "run" / "reward"), step("reward"), "srcc_world 0.5 < 0.9")
    code, page, said = finish("FAILED")
    assert (code, said["reason"]) == (0, "reward: srcc_world 0.5 < 0.9")
    assert "tracking is off" in page
