"""A champion that an earlier release registered loads by its alias, by the modules that it names."""

from __future__ import annotations

import hashlib
import json
import textwrap
from pathlib import Path

import pytest

from components.generator.params import SamplingParams
from components.registry.promotion_log import CHAMPION
from components.registry.versions.store import RegisteredModel
from tests.alignment.tiny import save_tiny
from tests.reward.conftest import write_reward

pytestmark = pytest.mark.usefixtures("mlflow_home")

#: Of a version registered by commit 3c99ad4, word for word: what MLflow runs to load it.
MODEL_CODE = textwrap.dedent(
    '''\
    """What MLflow runs to load a version of the {kind}; the project itself must be installed."""

    import mlflow

    from components.{module} import {model}

    mlflow.models.set_model({model}())
    '''
)
GENERATOR = MODEL_CODE.format(kind="generator", module="generator.serving", model="GeneratorModel")
REWARD = MODEL_CODE.format(kind="reward", module="reward.serving.pyfunc", model="RewardModel")
#: And what tells MLflow to run it.
MLMODEL = textwrap.dedent(
    """\
    flavors:
      python_function:
        artifacts: {artifacts}
        code: null
        env:
          virtualenv: python_env.yaml
        loader_module: mlflow.pyfunc.loaders.code_model
        model_code_path: model_code.py
        python_version: '3.11'
        streamable: false
    metadata:
      kind: {kind}
    utc_time_created: '2026-11-30T19:10:06+00:00'
    """
)


def registered(folder: Path, kind: str, code: str, places: dict[str, str]) -> str:
    """Register a folder as the champion; its URI."""
    artifacts = json.dumps({name: {"path": place, "uri": place} for name, place in places.items()})
    (folder / "MLmodel").write_text(MLMODEL.format(artifacts=artifacts, kind=kind))
    (folder / "model_code.py").write_text(code)
    model = RegisteredModel(f"earlier-{kind}", create=True)
    model.set_alias(CHAMPION, model.register(model.new_run(), folder, "key", {}, "of an earlier release"))
    return f"models:/{model.name}@{CHAMPION}"


def test_champions_of_an_earlier_release_load_by_alias_and_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("ONLINEVPO_DEVICE", "cpu")
    base, version = save_tiny(tmp_path / "base"), tmp_path / "generator"
    version.mkdir()
    files = {
        path.relative_to(base).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in base.rglob("*")
        if path.is_file()
    }
    about = {"base": str(base), "revision": None, "copy": None, "files": files}
    (version / "base.json").write_text(json.dumps(about))
    sampling = SamplingParams(num_frames=5, height=16, width=16, steps=1, guidance=1.0, batch=1)
    (version / "generator.json").write_text(sampling.model_dump_json())
    (version / "weights" / "transformer").mkdir(parents=True)
    for path in (base / "transformer").iterdir():
        (version / "weights" / "transformer" / path.name).write_bytes(path.read_bytes())
    places = {"aligned": "weights", "base": "base.json", "settings": "generator.json"}
    generator = mlflow.pyfunc.load_model(registered(version, "generator", GENERATOR, places))
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(generator.predict(["a red circle moving left"])["video"][0])

    write_reward(tmp_path / "packed" / "reward")
    reward = mlflow.pyfunc.load_model(registered(tmp_path / "packed", "reward", REWARD, {"reward": "reward"}))
    scores = reward.predict([str(clip)])
    assert scores["error"][0] is None and isinstance(scores["score"][0], float)
