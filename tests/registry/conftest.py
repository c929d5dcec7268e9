"""A real MLflow registry in a database of the session's, and artifacts with what the step reads in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.runtime.artifacts import Artifact, open_artifact, publish
from components.runtime.params import StepParams

GOOD = {
    "pairs": 192.0,
    "win_rate_reward_low": 0.8,
    "win_rate_judge_low": 0.6,
    "worst_semantic_delta": -0.01,
    "motion_ratio": 1.05,
    "diversity_ratio": 0.95,
    "aligned/judge": 0.70,
    "aligned/reward": 1.5,
}
Candidate = Callable[..., dict[str, Path]]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the session's MLflow: its first use creates the schema, which takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def mlflow_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    return home


def _artifact(
    folder: Path, step: str, files: dict[str, str], metrics: dict[str, float], inputs: dict[str, Artifact]
) -> Artifact:
    params = StepParams.model_validate({"run": {"device": "cpu"}})
    with publish(str(folder), step=step, params=params, inputs=inputs) as workspace:
        for name, content in files.items():
            (workspace.dir / name).parent.mkdir(parents=True, exist_ok=True)
            (workspace.dir / name).write_text(content)
        workspace.write_metrics(metrics)
    return open_artifact(folder, step=step)


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    """Make the inputs of the step: candidate("a", requests="r1", **{"aligned/judge": .8}) -> keyword
    arguments of run.
    """

    def make(name: str, requests: str = "r1", reward: str = "w1", **changes: float | None) -> dict[str, Path]:
        root = tmp_path / f"{name}-{requests}-{reward}"
        metrics = {key: value for key, value in (GOOD | changes).items() if value is not None}
        made = {
            "generator": _artifact(
                root / "generator", "generator", {"generator.json": '{"fps": 8}'}, {"colour": 0.97}, {}
            ),
            "reward": _artifact(root / "reward", "reward", {"model.safetensors": reward}, {"srcc": 0.9}, {}),
        }
        lora = {"lora/pytorch_lora_weights.safetensors": name}
        made["alignment"] = _artifact(root / "alignment", "alignment", lora, {"loss": 0.5}, dict(made))
        comparison = {
            "headline": f"{name} wins",
            "requests_digest": requests,
            "reward_digest": reward,
            "lora_digest": name,
            "generator_digest": made["generator"].manifest.digest,
        }
        files = {
            "comparison.json": json.dumps(comparison),
            "table.txt": f"the table of {name}\n",
            "report.html": "<html></html>",
        }
        made["evaluation"] = _artifact(root / "evaluation", "evaluation", files, metrics, dict(made))
        return {key: artifact.path for key, artifact in made.items()}

    return make
