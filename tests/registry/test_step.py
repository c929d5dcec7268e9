"""The step and its verbs against a real MLflow registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.registry.params import RegistryParams
from components.registry.promotion_log import CANDIDATE, CHAMPION, PREVIOUS
from components.registry.step import run
from components.registry.versions.files import fetch_from_run
from components.registry.versions.store import RegisteredModel
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.errors import GateRefused, InputError
from tests.registry.conftest import Candidate, command

pytestmark = pytest.mark.usefixtures("mlflow_home")


def aliases(params: RegistryParams) -> dict[str, str]:
    return RegisteredModel(params.model).aliases()


def test_first_good_candidate_becomes_champion_with_its_files(
    candidate: Candidate, params: RegistryParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(params, **candidate("a"), out=tmp_path / "registry")
    assert result.decision.outcome == "accepted"
    assert aliases(params) == {CANDIDATE: "1", CHAMPION: "1"}
    assert RegisteredModel(params.reward_model).aliases() == {CANDIDATE: "1", CHAMPION: "1"}
    import mlflow

    downloaded = Path(mlflow.artifacts.download_artifacts(f"models:/{params.model}@champion"))
    assert (downloaded / "lora" / "pytorch_lora_weights.safetensors").read_text() == "a"
    assert json.loads((downloaded / "evaluation" / "metrics.json").read_text())["pairs"] == 192
    saved = json.loads(
        open_artifact(tmp_path / "registry", step="registry").file("decision.json").read_text()
    )
    assert saved["outcome"] == "accepted"
    assert saved["gate"]["rules"]["minimum"] == {"prompts": 48, "pairs": 96}
    wins = next(check for check in saved["checks"] if "win_rate_judge" in check["rule"])
    assert (wins["value"], wins["low"], wins["high"]) == (0.7, 0.6, 0.8)
    shown = capsys.readouterr().out
    assert "the table of a" in shown
    assert shown.rstrip().endswith("report.html")


def test_whole_weights_become_champion_like_a_lora(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    run(params, **candidate("a", kind="weights"), out=tmp_path / "registry")
    import mlflow

    downloaded = Path(mlflow.artifacts.download_artifacts(f"models:/{params.model}@champion"))
    weights = downloaded / "weights" / "transformer" / "diffusion_pytorch_model.safetensors"
    assert weights.read_text() == "a" and not (downloaded / "lora").exists()
    # The champion's own weights, measured with another reward, are not put against themselves.
    again = run(params, **candidate("a", kind="weights", reward="w2"), out=tmp_path / "again")
    assert again.decision.outcome == "accepted"
    # Others are: weights of another run must be comparable.
    other = run(params, **candidate("b", kind="weights"), out=tmp_path / "other")
    assert other.decision.outcome == "refused" and "comparable" in other.decision.reasons[0]


def test_the_same_candidate_again_changes_nothing(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    inputs = candidate("a")
    first = run(params, **inputs, out=tmp_path / "registry")
    again = run(params, **inputs, out=tmp_path / "registry")
    assert again.decision == first.decision
    assert len(RegisteredModel(params.model).versions()) == 1
    assert len(RegisteredModel(params.model).log.read()[1]) == 1


def test_better_takes_over_worse_is_refused_and_rollback_goes_back(
    candidate: Candidate, params: RegistryParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(params, **candidate("a", reward="w1"), out=tmp_path / "registry")
    run(params, **candidate("b", **{"aligned/judge": 0.8}), out=tmp_path / "registry")
    assert aliases(params) == {CANDIDATE: "2", CHAMPION: "2", PREVIOUS: "1"}
    worse = run(params, **candidate("c", **{"aligned/judge": 0.75}), out=tmp_path / "registry")
    assert worse.decision.outcome == "refused"
    assert aliases(params) == {CANDIDATE: "3", CHAMPION: "2", PREVIOUS: "1"}
    tags = RegisteredModel(params.model).versions()[2]["tags"]
    assert tags["decision"] == "refused"
    assert "judge at most" in tags["reasons"]
    capsys.readouterr()
    assert command(params, "promote") == 3
    said = capsys.readouterr()
    assert said.err.startswith(f"refused: version 3 of {params.model}: judge at most 0.02 below champion")
    assert "-0.0500" in said.err
    assert command(params, "rollback", "--reason", " ") == 2
    assert command(params, "rollback", "--reason", "lattice seen") == 0
    assert aliases(params) == {CANDIDATE: "3", CHAMPION: "1"}
    assert command(params, "promote", "--version", "2", "--note", "lattice explained") == 0
    assert aliases(params) == {CANDIDATE: "3", CHAMPION: "2", PREVIOUS: "1"}
    actions = [(one.action, one.version) for one in RegisteredModel(params.model).log.read()[1]]
    assert actions == [
        ("promoted", "1"),
        ("promoted", "2"),
        ("refused", "3"),
        ("refused", "3"),
        ("rolled back", "1"),
        ("promoted", "2"),
    ]
    capsys.readouterr()
    assert command(params, "show") == 0
    shown = capsys.readouterr().out
    assert "version 3" in shown and "candidate" in shown
    assert (
        "rolled back from version 2 to version 1, by" in shown
        and "lattice seen" in shown
        and "lattice explained" in shown
    )


def test_another_gate_decides_otherwise_and_is_kept_whole(
    candidate: Candidate, params: RegistryParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(params, **candidate("a"), out=tmp_path / "registry")
    run(params, **candidate("b", **{"aligned/judge": 0.6}), out=tmp_path / "registry")
    assert aliases(params)[CHAMPION] == "1"
    gate = tmp_path / "lenient.yaml"
    gate.write_text("champion: [{metric: judge, margin: 0.2}]")
    assert command(params, "promote", "--gate", str(gate), "--note", "known to be worse") == 0
    assert aliases(params)[CHAMPION] == "2"
    models = RegisteredModel(params.model)
    last = models.log.read()[1][-1]
    (run_id,) = models.runs_of("2")
    kept = fetch_from_run(run_id, f"decisions/{last.decision[:16]}.json", tmp_path / "kept")
    decision = json.loads(kept.read_text())
    assert decision["gate"]["rules"]["champion"][0]["margin"] == 0.2
    assert decision["note"] == "known to be worse"
    assert decision["champion"] == "1"


def test_a_champion_evaluated_otherwise_is_not_compared_until_it_is_evaluated_again(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    run(params, **candidate("a"), out=tmp_path / "registry")
    other = candidate("b", requests="r2", **{"aligned/judge": 0.9})
    assert "not comparable" in run(params, **other, out=tmp_path / "registry").decision.reasons[0]
    assert aliases(params)[CHAMPION] == "1"
    gate = tmp_path / "nothing.yaml"
    gate.write_text("{}")  # no gate file lets a comparison of unlike things pass
    assert command(params, "promote", "--gate", str(gate)) == 3
    again = run(params, **candidate("a", requests="r2"), out=tmp_path / "registry")
    assert again.decision.outcome == "accepted"
    assert run(params, **other, out=tmp_path / "registry").decision.outcome == "accepted"
    assert aliases(params)[CHAMPION] == "2"


def test_refusal_fails_the_step_only_when_asked_and_is_published_either_way(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    inputs = candidate("a", win_rate_judge_low=0.4)
    soft = run(params, **inputs, out=tmp_path / "soft")
    assert soft.metrics["accepted"] == 0
    strict = params.model_copy(update={"fail_on_refusal": True})
    with pytest.raises(GateRefused, match="win_rate_judge"):
        run(strict, **inputs, out=tmp_path / "strict")
    assert CHAMPION not in aliases(params)
    published = open_artifact(tmp_path / "strict", step="registry", allow_refused=True)
    assert json.loads(published.file("decision.json").read_text())["outcome"] == "refused"


def test_an_evaluation_of_another_candidate_is_refused(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    mixed = candidate("a") | {"evaluation": candidate("b")["evaluation"]}
    with pytest.raises(InputError, match="was not made from the alignment artifact"):
        run(params, **mixed, out=tmp_path / "registry")
    assert not (tmp_path / "registry").exists()


def test_a_champion_from_before_there_was_a_record_is_taken_on(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    run(params, **candidate("a"), out=tmp_path / "registry")
    client = MlflowClient()
    client.delete_registered_model(f"{params.model}-promotions")
    run(params, **candidate("b", **{"aligned/judge": 0.6}), out=tmp_path / "registry")
    assert aliases(params)[CHAMPION] == "1"
    actions = [(one.action, one.version) for one in RegisteredModel(params.model).log.read()[1]]
    assert actions == [("adopted", "1"), ("refused", "2")]


def test_an_unreachable_registry_is_one_clear_line_without_its_password(
    candidate: Candidate, params: RegistryParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:hidden@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"model registry at http://someone@127\.0\.0\.1:9") as caught:
        run(params, **candidate("a"), out=tmp_path / "registry")
    assert "hidden" not in str(caught.value)
    assert not list(tmp_path.glob("registry*"))


def test_an_unknown_version_is_named_with_those_there_are(
    candidate: Candidate, params: RegistryParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(params, **candidate("a", motion_ratio=0.5), out=tmp_path / "registry")
    assert command(params, "promote", "--version", "7") == 2
    assert "no version `7`; there are: candidate, 1" in capsys.readouterr().err
    assert command(params, "rollback", "--reason", "x") == 2
    assert "no previous champion" in capsys.readouterr().err
