"""The step against a real MLflow registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.registry.__main__ import app
from components.registry.models import CANDIDATE, CHAMPION, PREVIOUS, Models
from components.registry.params import RegistryParams
from components.registry.step import run
from components.runtime.artifacts import open_artifact
from components.runtime.errors import GateRefused, InputError
from components.runtime.step import main

Candidate = Callable[..., dict[str, Path]]

pytestmark = pytest.mark.usefixtures("mlflow_home")


@pytest.fixture
def params(request: pytest.FixtureRequest) -> RegistryParams:
    """One registered model per test."""
    return RegistryParams.model_validate(
        {"model": request.node.name[:60].replace("[", "-").replace("]", ""), "run": {"device": "cpu"}}
    )


def aliases(params: RegistryParams) -> dict[str, str]:
    return Models(params.model).aliases()


def test_first_good_candidate_becomes_champion_with_its_files(
    candidate: Candidate, params: RegistryParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(params, **candidate("a"), out=tmp_path / "registry")
    assert result.decision.outcome == "accepted"
    assert aliases(params) == {CANDIDATE: "1", CHAMPION: "1"}
    import mlflow

    downloaded = Path(mlflow.artifacts.download_artifacts(f"models:/{params.model}@champion"))
    assert (downloaded / "lora" / "pytorch_lora_weights.safetensors").read_text() == "a"
    assert json.loads((downloaded / "evaluation" / "metrics.json").read_text())["pairs"] == 192
    saved = json.loads(
        open_artifact(tmp_path / "registry", step="registry").file("decision.json").read_text()
    )
    assert saved["outcome"] == "accepted"
    assert len(saved["checks"]) == len(params.rules)
    shown = capsys.readouterr().out
    assert "the table of a" in shown
    assert shown.rstrip().endswith("report.html")


def test_the_same_candidate_again_changes_nothing(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    inputs = candidate("a")
    run(params, **inputs, out=tmp_path / "registry")
    again = run(params, **inputs, out=tmp_path / "registry")
    assert again.decision.outcome == "unchanged"
    assert len(Models(params.model).versions()) == 1


def test_better_takes_over_worse_is_refused_and_rollback_goes_back(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    run(params, **candidate("a"), out=tmp_path / "registry")
    run(params, **candidate("b", **{"aligned/judge": 0.8}), out=tmp_path / "registry")
    assert aliases(params) == {CANDIDATE: "2", CHAMPION: "2", PREVIOUS: "1"}
    worse = run(params, **candidate("c", **{"aligned/judge": 0.75}), out=tmp_path / "registry")
    assert worse.decision.outcome == "refused"
    assert aliases(params) == {CANDIDATE: "3", CHAMPION: "2", PREVIOUS: "1"}
    tags = Models(params.model).versions()[2]["tags"]
    assert tags["onlinevpo.decision"] == "refused"
    assert "aligned/judge" in tags["onlinevpo.reasons"]
    done = CliRunner().invoke(
        app, ["rollback", "--reason", "lattice seen", "--set", f"registry.model={params.model}"]
    )
    assert done.exit_code == 0, done.output
    assert aliases(params) == {CANDIDATE: "3", CHAMPION: "1", PREVIOUS: "2"}


def test_a_champion_evaluated_otherwise_is_not_compared_until_it_is_evaluated_again(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    run(params, **candidate("a"), out=tmp_path / "registry")
    other = candidate("b", requests="r2", **{"aligned/judge": 0.9})
    assert "not comparable" in run(params, **other, out=tmp_path / "registry").decision.reasons[0]
    assert aliases(params)[CHAMPION] == "1"
    again = run(params, **candidate("a", requests="r2"), out=tmp_path / "registry")
    assert again.decision.outcome == "accepted"
    assert run(params, **other, out=tmp_path / "registry").decision.outcome == "accepted"
    assert aliases(params)[CHAMPION] == "2"


def test_refusal_fails_the_step_only_when_asked_and_is_published_either_way(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    inputs = candidate("a", **{"win_rate_judge_low": 0.4})
    soft = run(params, **inputs, out=tmp_path / "soft")
    assert soft.metrics["accepted"] == 0
    strict = params.model_copy(update={"fail_on_refusal": True})
    with pytest.raises(GateRefused, match="win_rate_judge_low"):
        run(strict, **inputs, out=tmp_path / "strict")
    assert CHAMPION not in aliases(params)
    published = open_artifact(tmp_path / "strict", step="registry", allow_refused=True)
    assert json.loads(published.file("decision.json").read_text())["outcome"] == "refused"


def test_an_evaluation_of_another_candidate_is_refused(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    mixed = candidate("a") | {"evaluation": candidate("b")["evaluation"]}
    with pytest.raises(InputError, match="not made from the alignment artifact"):
        run(params, **mixed, out=tmp_path / "registry")
    assert not (tmp_path / "registry").exists()


def test_a_promotion_in_between_is_noticed(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    run(params, **candidate("a"), out=tmp_path / "registry")
    with pytest.raises(InputError, match="another promotion came between"):
        Models(params.model).promote("1", None, "late")


def test_an_unreachable_registry_is_one_clear_line(
    candidate: Candidate, params: RegistryParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"model registry at http://127\.0\.0\.1:9"):
        run(params, **candidate("a"), out=tmp_path / "registry")
    assert not list(tmp_path.glob("registry*"))


def test_show_lists_versions_and_reasons(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    run(params, **candidate("a", **{"motion_ratio": 0.5}), out=tmp_path / "registry")
    shown = CliRunner().invoke(app, ["show", "--set", f"registry.model={params.model}"])
    assert shown.exit_code == 0, shown.output
    assert "version 1" in shown.output
    assert "candidate" in shown.output
    assert "motion_ratio" in shown.output


def test_promote_by_hand_needs_a_reason_and_an_existing_version(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    run(params, **candidate("a", **{"motion_ratio": 0.5}), out=tmp_path / "registry")
    setting = ["--set", f"registry.model={params.model}"]
    with pytest.raises(SystemExit) as ended:
        main(app, ["promote", "--version", "1", "--reason", " ", *setting])
    assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        main(app, ["promote", "--version", "7", "--reason", "x", *setting])
    assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        main(app, ["promote", "--version", "1", "--reason", "looked at the clips", *setting])
    assert ended.value.code == 0
    assert aliases(params)[CHAMPION] == "1"
