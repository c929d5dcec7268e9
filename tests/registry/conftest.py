"""A real MLflow registry in a database of the session's, and artifacts with what the step reads in them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from components.registry.__main__ import app
from components.registry.params import RegistryParams
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.artifacts.publish import publish
from components.runtime.params import StepParams
from components.runtime.step import main

GOOD = {
    "prompts": 96.0,
    "pairs": 192.0,
    "win_rate_reward": 0.85,
    "win_rate_reward_low": 0.8,
    "win_rate_reward_high": 0.9,
    "win_rate_judge": 0.7,
    "win_rate_judge_low": 0.6,
    "win_rate_judge_high": 0.8,
    "worst_semantic_delta": -0.01,
    "motion_ratio": 1.05,
    "diversity_ratio": 0.95,
    "aligned/judge": 0.70,
    "aligned/reward": 1.5,
    **{f"aligned/{name}": 0.99 for name in ("temporal_flickering", "motion_smoothness", "dynamic_degree")},
    **{f"delta/{name}": 0.0 for name in ("temporal_flickering", "motion_smoothness")},
    **{f"delta_low/{name}": -0.001 for name in ("temporal_flickering", "motion_smoothness")},
    **{f"delta_high/{name}": 0.001 for name in ("temporal_flickering", "motion_smoothness")},
}
Candidate = Callable[..., dict[str, Path]]


@pytest.fixture
def params(request: pytest.FixtureRequest) -> RegistryParams:
    """One registered model per test."""
    name = re.sub(r"[\[\]/]", "-", request.node.name[:60])
    return RegistryParams.model_validate(
        {"model": name, "reward_model": f"{name}-reward", "run": {"device": "cpu"}}
    )


def command(params: RegistryParams, *words: str) -> int:
    """Exit code of a verb."""
    settings = [f"registry.model={params.model}", f"registry.reward_model={params.reward_model}"]
    with pytest.raises(SystemExit) as ended:
        main(app, [*words, *(part for setting in settings for part in ("--set", setting))])
    return int(str(ended.value.code))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the session's MLflow: its first use creates the schema, which takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def mlflow_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    return home


def pair_rows(prompts: int = 20, name: str = "", **aligned: float) -> list[dict[str, Any]]:
    """Rows of two seeds for each prompt with these figures on average, and a spread that ``name`` draws.

    Two versions that differ by the same in every prompt would have no spread, and so no interval.
    """
    draws = random.Random(name)
    errors = [draws.gauss(0, 0.004) for _ in range(2 * prompts)]
    mean = sum(errors) / len(errors)
    return [
        {
            "prompt_id": f"p{place // 2}",
            "index": place % 2,
            "seed": place,
            "aligned": {score: value + errors[place] - mean for score, value in aligned.items()},
        }
        for place in range(2 * prompts)
    ]


def _artifact(
    folder: Path, step: str, files: Mapping[str, str], metrics: dict[str, float], inputs: dict[str, Artifact]
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
    arguments of run. ``pairs=False``: without pairs.jsonl; ``corpus=True``: with the corpus beside them.
    """

    def make(
        name: str,
        requests: str = "r1",
        reward: str = "w1",
        kind: str = "lora",
        pairs: bool = True,
        corpus: bool = False,
        page: str = "<html></html>",
        **changes: float | None,
    ) -> dict[str, Path]:
        root = tmp_path / f"{name}-{requests}-{reward}-{kind}"
        metrics = {key: value for key, value in (GOOD | changes).items() if value is not None}
        pipeline = {"generator.json": '{"fps": 8}', "pipeline/model_index.json": "{}"}
        made = {
            "generator": _artifact(root / "generator", "generator", pipeline, {"colour": 0.97}, {}),
            "reward": _artifact(root / "reward", "reward", {"model.safetensors": reward}, {"srcc": 0.9}, {}),
        }
        file = {"lora": "pytorch_lora_weights", "weights": "transformer/diffusion_pytorch_model"}[kind]
        trained = {f"{kind}/{file}.safetensors": name, "timing.json": '{"rollout": 3.0}'}
        made["alignment"] = _artifact(root / "alignment", "alignment", trained, {"loss": 0.5}, dict(made))
        comparison = {
            "headline": f"{name} wins",
            "requests_digest": requests,
            "reward_digest": reward,
            f"{kind}_digest": name,
            "generator_digest": made["generator"].manifest.digest,
            "unavailable": {"aesthetic_quality": "needs weights"},
        }
        scores = {score: metrics[f"aligned/{score}"] for score in ("judge", "reward")}
        files = {
            "comparison.json": json.dumps(comparison),
            "table.txt": f"the table of {name}\n",
            "report.html": page,
        }
        if pairs:
            files["pairs.jsonl"] = "".join(json.dumps(row) + "\n" for row in pair_rows(name=name, **scores))
        used = dict(made)
        if corpus:
            prompts = {"prompts.jsonl": '{"prompt": "x"}\n'}
            used["corpus"] = _artifact(root / "corpus", "corpus", prompts, {"clips": 1.0}, {})
        made["evaluation"] = _artifact(root / "evaluation", "evaluation", files, metrics, used)
        return {key: artifact.path for key, artifact in made.items()}

    return make
