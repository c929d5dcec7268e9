"""The MLflow model: loaded where nothing of this process is left, its figures are those of `score`."""

from __future__ import annotations

import json
import os
import pickletools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.reward.scoring import mlflow_model as serving
from components.reward.scoring.load import open_reward
from components.reward.scoring.videos import Source, score_files
from components.runtime.errors import InputError
from components.video.clip import Clip
from components.video.codec import write_video
from tests.reward.conftest import world

READ = """
import json, pickle, sys
import pandas as pd

def never(*arguments, **named):
    raise AssertionError("something is unpickled")

pickle.load = pickle.loads = pickle.Unpickler = never
import mlflow
import cloudpickle
cloudpickle.load = cloudpickle.loads = never

model = mlflow.pyfunc.load_model(sys.argv[1])
paths = sys.argv[2:]
as_list = model.predict(paths)
as_table = model.predict(pd.DataFrame({"path": paths}))
pd.testing.assert_frame_equal(as_list, as_table)
rows = json.loads(as_list.to_json(orient="records", double_precision=10))
print(json.dumps({"columns": list(as_list.columns), "rows": rows}))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two good videos with a broken one between them."""
    folder = tmp_path_factory.mktemp("files")
    for place in (0, 2):
        write_video(Clip(world(1, seed=place)[0], 8.0), folder / f"{place}.mp4", scale=1)
    (folder / "1.mp4").write_bytes((folder / "0.mp4").read_bytes()[:300])
    return [str(folder / f"{place}.mp4") for place in range(3)]


@pytest.fixture(scope="module")
def model(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("mlflow")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        return serving.save(untrained, folder / "model")


def test_a_new_process_gives_the_scores_of_the_verb_and_unpickles_nothing(
    untrained: Path, model: Path, files: list[str], repository: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(model), *files],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository), "ONLINEVPO_DEVICE": "cpu"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    aspects = ["spatial", "codec", "temporal", "diffusion"]
    assert found["columns"] == [
        "path",
        "score",
        "uncertainty",
        *(f"aspect_{name}" for name in aspects),
        "error",
    ]
    known = list(score_files(open_reward(untrained, "cpu"), [Source(file) for file in files]))
    for row, result in zip(found["rows"], known, strict=True):
        assert (row["path"], row["error"]) == (result.path, result.error)
        assert row["score"] == result.score and row["uncertainty"] == result.uncertainty
        assert [row[f"aspect_{name}"] for name in aspects] == [result.aspects.get(name) for name in aspects]
    assert [result.error is None for result in known] == [True, False, True]


def test_nothing_in_the_model_is_a_pickle_and_it_names_what_it_is(untrained: Path, model: Path) -> None:
    for file in model.rglob("*"):
        if "__pycache__" in file.parts:
            continue  # left by a process that loaded the model
        if file.is_file() and file.suffix not in (".json", ".yaml", ".yml", ".txt", ".py", ".md"):
            assert file.suffix in (".safetensors", "") and not _is_pickle(file.read_bytes()), file
    about = yaml.safe_load((model / "MLmodel").read_text())
    flavour = about["flavors"]["python_function"]
    assert Path(flavour["model_code_path"]).name == "pyfunc.py" and "python_model" not in flavour
    assert (model / "pyfunc.py").read_bytes() == serving.CODE.read_bytes()
    assert about["metadata"]["kind"] == "ladders" and len(about["metadata"]["reward_digest"]) == 64
    assert "torch==" in (model / "requirements.txt").read_text()


def _is_pickle(data: bytes) -> bool:
    try:
        for _ in pickletools.genops(data):
            pass
    except Exception:
        return False
    return True


def test_a_logged_model_can_be_registered_and_loaded_by_its_name(
    untrained: Path, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    import mlflow

    uri = serving.log(untrained)
    mlflow.register_model(uri, "onlinevpo-reward")
    table = mlflow.pyfunc.load_model("models:/onlinevpo-reward/1").predict(files)
    assert table["score"].notna().tolist() == [True, False, True]
    mlflow.end_run()


def test_a_prompt_for_each_path_reaches_the_reward(
    untrained: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    from components.reward.scoring.pyfunc import RewardModel

    model = RewardModel()

    class Context:
        artifacts = {"reward": str(untrained)}  # noqa: RUF012

    monkeypatch.setenv("ONLINEVPO_DEVICE", "cpu")
    model.load_context(Context())
    told: list[str] = []
    rate = model.reward.rate
    monkeypatch.setattr(
        model.reward,
        "rate",
        lambda frames, fps, prompts=None: told.extend(prompts or []) or rate(frames, fps),
    )
    model.predict(None, pd.DataFrame({"path": [files[0], files[2]], "prompt": ["a cat", None]}))
    assert told == ["a cat", ""]


def test_what_cannot_be_written_is_one_line(untrained: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(model)):
        serving.save(untrained, model)
    with pytest.raises(InputError, match="no artifact there"):
        serving.save(tmp_path / "none", tmp_path / "m")


def test_what_registered_versions_import_is_still_there() -> None:
    """Versions in a registry hold a file with these import lines."""
    from mlflow.pyfunc import PythonModel

    from components.generator.serving import GeneratorModel
    from components.reward.scoring import pyfunc
    from components.reward.serving.pyfunc import RewardModel

    assert RewardModel is pyfunc.RewardModel
    assert issubclass(RewardModel, PythonModel) and issubclass(GeneratorModel, PythonModel)
