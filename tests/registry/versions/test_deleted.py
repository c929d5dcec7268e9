"""Versions, runs, experiments deleted in MLflow's pages: every command works on what is left and says so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from components.registry.params import RegistryParams
from components.registry.promotion_log import CANDIDATE, CHAMPION, PREVIOUS
from components.registry.step import run
from components.registry.versions.store import RegisteredModel
from tests.registry.conftest import Candidate, command

pytestmark = pytest.mark.usefixtures("mlflow_home")


class Registry:
    """A registry with a step and its commands, as a person uses them, and MLflow's own client beside."""

    def __init__(self, params: RegistryParams, candidate: Candidate, folder: Path, capsys: Any) -> None:
        from mlflow import MlflowClient

        self.params, self.name, self.client = params, params.model, MlflowClient()
        self._candidate, self._folder, self._capsys = candidate, folder, capsys

    def step(self, name: str, judge: float, out: str = "registry", **more: Any) -> Any:
        """Register a candidate of that name, better the higher its judge."""
        inputs = self._candidate(name, **{"aligned/judge": judge}, **more)
        return run(self.params, **inputs, out=self._folder / out)

    def command(self, *words: str, code: int = 0) -> str:
        """What a command prints, both streams; it must end with `code`."""
        self._capsys.readouterr()
        ended = command(self.params, *words)
        said = self._capsys.readouterr()
        assert ended == code, said
        return str(said.out + said.err)

    def aliases(self) -> dict[str, str]:
        """Version by alias."""
        return RegisteredModel(self.name).aliases()

    def delete(self, version: str) -> None:
        """As a click in MLflow's page does."""
        self.client.delete_model_version(self.name, version)


@pytest.fixture
def registry(
    params: RegistryParams, candidate: Candidate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Registry:
    """A registry of the test's own in the session's database."""
    return Registry(params, candidate, tmp_path, capsys)


def three(registry: Registry) -> None:
    """Three champions, one after the other."""
    for name, judge in (("a", 0.7), ("b", 0.8), ("c", 0.9)):
        registry.step(name, judge)
    assert registry.aliases() == {CANDIDATE: "3", CHAMPION: "3", PREVIOUS: "2"}


def test_rollbacks_go_back_through_the_champions_and_never_forward_again(registry: Registry) -> None:
    three(registry)
    said = registry.command("rollback", "--reason", "lattice")
    assert "rolled back from version 3 to version 2" in said
    assert registry.aliases() == {CANDIDATE: "3", CHAMPION: "2", PREVIOUS: "1"}
    assert "from version 2 to version 1" in registry.command("rollback", "--reason", "flicker")
    assert registry.aliases() == {CANDIDATE: "3", CHAMPION: "1"}
    assert "no previous champion" in registry.command("rollback", "--reason", "all of it", code=2)
    assert registry.aliases() == {CANDIDATE: "3", CHAMPION: "1"}
    shown = registry.command("show")
    assert "rolled back from version 3 to version 2, by" in shown
    assert "version 3 promoted in place of version 2" in shown


def test_a_rolled_back_candidate_does_not_come_back_when_the_step_runs_again(registry: Registry) -> None:
    registry.step("a", 0.7)
    registry.step("b", 0.8, out="b")
    registry.command("rollback", "--reason", "lattice")
    again = registry.step("b", 0.8, out="b")
    assert again.decision.outcome == "accepted"  # what was decided of it, when it was
    assert registry.aliases()[CHAMPION] == "1"


def test_a_deleted_champion_is_rolled_back_from(registry: Registry) -> None:
    three(registry)
    registry.delete("3")
    assert "version 3" in registry.command("show") and CHAMPION not in registry.aliases()
    said = registry.command("rollback", "--reason", "deleted by mistake")
    assert "was deleted in MLflow" in said and "rolled back from version 3 to version 2" in said
    assert registry.aliases() == {CHAMPION: "2", PREVIOUS: "1"}
    assert registry.command("verify").count("DIFFERS") == 0


def test_a_deleted_champion_does_not_keep_others_from_promotion(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    three(registry)
    registry.delete("3")
    result = registry.step("d", 0.85)
    said = capsys.readouterr().out
    assert result.decision.outcome == "accepted" and result.decision.champion == "2"
    assert "version 3" in said and "was deleted in MLflow" in said
    number = result.version
    assert registry.aliases() == {CANDIDATE: number, CHAMPION: number, PREVIOUS: "2"}
    entries = RegisteredModel(registry.name).log.read()[1]
    assert [entry.words for entry in entries[-2:]] == [
        "rolled back from version 3 to version 2",
        f"version {number} promoted in place of version 2",
    ]


def test_a_deleted_previous_neither_stops_promotions_nor_rollbacks(registry: Registry) -> None:
    three(registry)
    registry.delete("2")
    shown = registry.command("show")
    assert "version 2 of" in shown and "an earlier champion, was deleted in MLflow" in shown
    result = registry.step("d", 0.95)
    assert registry.aliases() == {CANDIDATE: result.version, CHAMPION: result.version, PREVIOUS: "3"}
    registry.command("rollback", "--reason", "one back")
    assert registry.aliases()[CHAMPION] == "3"
    assert "from version 3 to version 1" in registry.command("rollback", "--reason", "past what is gone")
    assert registry.aliases() == {CANDIDATE: result.version, CHAMPION: "1"}


def test_with_every_champion_deleted_a_candidate_is_the_first_again(registry: Registry) -> None:
    registry.step("a", 0.9)
    registry.step("b", 0.95)
    for version in ("1", "2"):
        registry.delete(version)
    assert "was deleted in MLflow" in registry.command("rollback", "--reason", "x", code=2)
    result = registry.step("c", 0.7)
    assert result.decision.outcome == "accepted" and result.decision.champion is None
    assert registry.aliases()[CHAMPION] == result.version


def test_a_model_deleted_and_made_anew_has_other_versions_of_the_same_numbers(registry: Registry) -> None:
    registry.step("a", 0.9)
    registry.client.delete_registered_model(registry.name)
    result = registry.step("b", 0.7)
    assert result.version == "1" and result.decision.outcome == "accepted"
    assert registry.aliases() == {CANDIDATE: "1", CHAMPION: "1"}


def test_a_deleted_reward_is_told_and_registered_again_by_the_step(registry: Registry) -> None:
    registry.step("a", 0.7)
    registry.client.delete_model_version(f"{registry.name}-reward", "1")
    assert "was deleted in MLflow" in registry.command("verify", code=3)
    registry.step("a", 0.7)
    reward = RegisteredModel(f"{registry.name}-reward")
    (version,) = (row["version"] for row in reward.versions())
    assert reward.aliases() == {CANDIDATE: version, CHAMPION: version}
    registry.command("verify")


def test_a_deleted_run_still_takes_promotions(registry: Registry) -> None:
    registry.step("a", 0.7)
    registry.step("b", 0.6)
    (run_id,) = RegisteredModel(registry.name).runs_of("2")
    registry.client.delete_run(run_id)
    registry.command("promote", "--version", "2", code=3)
    gate = Path("lenient.yaml")
    gate.write_text("champion: [{metric: judge, margin: 0.3}]")
    registry.command("promote", "--version", "2", "--gate", str(gate))
    assert registry.aliases()[CHAMPION] == "2"
    registry.command("verify")


def test_files_gone_from_the_store_are_registered_anew(registry: Registry) -> None:
    registry.step("a", 0.7)
    source = registry.client.get_model_version_download_uri(registry.name, "1")
    shutil.rmtree(Path(urlsplit(source).path) / "lora")
    result = registry.step("a", 0.7)
    assert result.version == "2" and result.decision.outcome == "accepted"
    assert registry.aliases() == {CANDIDATE: "2", CHAMPION: "2", PREVIOUS: "1"}
    registry.command("verify")


def test_a_deleted_entry_of_the_record_leaves_the_others_in_effect(registry: Registry) -> None:
    three(registry)
    registry.client.delete_model_version(f"{registry.name}-promotions", "2")
    said = registry.command("rollback", "--reason", "x")
    assert "rolled back from version 3 to version 2" in said
    assert registry.aliases()[CHAMPION] == "2"


def test_a_deleted_experiment_is_one_line_with_its_remedy(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.runtime.errors import InputError

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "soon gone")
    number = registry.client.create_experiment("soon gone")
    registry.client.delete_experiment(number)
    with pytest.raises(InputError, match=f"mlflow experiments restore -x {number}"):
        registry.step("a", 0.7)


def test_versions_are_kept_in_the_experiment_that_the_environment_names(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours alone")
    registry.step("a", 0.7)
    (run_id,) = RegisteredModel(registry.name).runs_of("1")
    experiment = registry.client.get_run(run_id).info.experiment_id
    assert registry.client.get_experiment(experiment).name == "ours alone"
