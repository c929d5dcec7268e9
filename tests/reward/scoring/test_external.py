"""Imported and combined rewards are artifacts like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from components.reward.base import scoring_files
from components.reward.scoring.external import CombineParams, ImportParams, combine, import_model
from components.reward.scoring.load import open_reward
from components.reward.scoring.transformers import Description, Regressor
from components.reward.scoring.videos import Source, score_files
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.publish import publish
from components.runtime.errors import GateRefused, InputError
from components.runtime.io import storage
from components.runtime.params import StepParams
from components.runtime.step import main
from components.video.clip import Clip
from components.video.codec import write_video
from tests.reward.conftest import FRAMES, SIDE, textured, world, write_reward
from tests.reward.scoring.tiny_regressors import ASPECTS, write_videomae, write_videoscore
from tests.s3 import Store

CPU = {"run": {"device": "cpu"}}


def params(**given: object) -> ImportParams:
    return ImportParams.model_validate(CPU | given)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator's samples: 3 prompts, 4 clips of each."""
    folder = tmp_path_factory.mktemp("generator") / "generator"
    with publish(str(folder), step="generator", params=StepParams(), inputs={}) as workspace:
        frames = torch.cat((world(6), textured(6))).reshape(3, 4, FRAMES, 3, SIDE, SIDE).contiguous()
        save_file({"frames": frames}, workspace.dir / "samples.safetensors")
        rows = [json.dumps({"prompt_id": f"p{i}", "text": f"film {i}"}) for i in range(3)]
        (workspace.dir / "samples.jsonl").write_text("\n".join(rows) + "\n")
        (workspace.dir / "generator.json").write_text('{"fps": 8.0}')
        workspace.write_metrics({})
    return folder


def test_an_imported_model_is_a_whole_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The artifact holds all that scoring needs, says that it is unmeasured, and scores as its source did."""
    source = write_videomae(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "train.py").write_text("raise SystemExit")
    clips = world(3)
    before = Regressor.of(source, Description("here", 4, ("sharp", "smooth"))).rate(clips, 8.0)
    made = import_model(params(model=str(source)), out=tmp_path / "reward")
    shutil.rmtree(source)
    artifact = open_artifact(tmp_path / "reward", step="reward")
    assert artifact.metrics() == made.metrics and made.metrics["measured"] == 0.0
    assert json.loads((artifact.path / "config.json").read_text())["measured"] is False
    names = {"config.json", "model/config.json", "model/model.safetensors", "model/preprocessor_config.json"}
    assert set(artifact.manifest.files) == names | {"metrics.json"}
    assert set(scoring_files(artifact.manifest.files)) == names
    capsys.readouterr()
    after = open_reward(artifact, "cpu").rate(clips, 8.0)
    assert "unmeasured" in capsys.readouterr().err
    assert torch.equal(after.score, before.score) and list(after.aspects) == ["sharp", "smooth"]


def test_the_verbs_import_and_score_with_a_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from components.reward.__main__ import app

    write_videoscore(tmp_path / "source")
    (tmp_path / "ask.txt").write_text("Rate {prompt}:")
    video = tmp_path / "v.mp4"
    write_video(Clip(world(1)[0], 8.0), video, scale=1)

    def verb(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(app, arguments)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    out = str(tmp_path / "reward")
    given = ["--model", str(tmp_path / "source"), "--out", out, "--device", "cpu"]
    code, _, said = verb("import", *given)
    assert code == 2 and "--aspects" in said and said.count("\n") == 1
    code, _, said = verb("adopt", *given)  # the verb of the last release
    assert code == 2 and "--aspects" in said and "deprecated" in said
    code, told, said = verb(
        "import", *given, "--aspects", ",".join(ASPECTS), "--text", str(tmp_path / "ask.txt")
    )
    assert code == 0 and "done" in told and "unmeasured" in said
    scores = []
    for prompt in ("a cat", "a red ball"):
        code, told, said = verb("score", "--reward", out, "--prompt", prompt, str(video))
        assert code == 0 and "unmeasured" in said
        row = json.loads(told)
        assert set(row["aspects"]) == set(ASPECTS)
        scores.append(row["score"])
        assert row["score"] == pytest.approx(sum(row["aspects"].values()) / 5, abs=2e-6)
    assert scores[0] != scores[1]


def test_from_a_mirror_in_a_store_and_into_one(tmp_path: Path, store: Store) -> None:
    for file in write_videomae(tmp_path / "mae").iterdir():
        storage.write_file(file, f"s3://bucket/models/mae/{file.name}")
    import_model(params(model="s3://bucket/models/mae"), out="s3://bucket/runs/reward")
    reward = open_reward(open_artifact("s3://bucket/runs/reward", step="reward"), "cpu")
    known = Regressor.of(tmp_path / "mae", Description("", 4, ("a", "b")))
    assert torch.equal(reward.score(world(2), 8.0), known.score(world(2), 8.0))


def test_the_hub_is_not_asked_when_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(InputError, match=r"--model 'nobody/nothing'.*hub"):
        import_model(params(model="nobody/nothing"), out=tmp_path / "reward")
    assert not (tmp_path / "reward").exists() and not (tmp_path / "reward.partial").exists()


def test_a_processor_that_does_not_fit_its_model_is_found_at_once(tmp_path: Path) -> None:
    write_videomae(tmp_path / "source")
    file = tmp_path / "source" / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    settings |= {"size": {"shortest_edge": 40}, "crop_size": {"height": 40, "width": 40}}
    file.write_text(json.dumps(settings))
    with pytest.raises(InputError, match="cannot score a clip of 4 frames"):
        import_model(params(model=str(tmp_path / "source")), out=tmp_path / "reward")
    assert not (tmp_path / "reward").exists()


def test_a_sum_is_of_its_parts_in_units_within_prompts(
    tmp_path: Path, untrained: Path, generator: Path
) -> None:
    other = write_reward(tmp_path / "other", seed=5)
    terms = [{"reward": str(untrained), "weight": 2.0}, {"reward": str(other), "weight": -0.5}]
    made = combine(
        CombineParams.model_validate(CPU | {"terms": terms}), out=tmp_path / "sum", generator=str(generator)
    )
    parts = [open_reward(part, "cpu") for part in (untrained, other)]
    frames = torch.cat((world(6), textured(6)))
    known = torch.zeros(12, dtype=torch.float64)
    for part, term in zip(parts, terms, strict=True):
        scores = part.score(frames, 8.0).double().reshape(3, 4)
        unit = scores.var(dim=1, unbiased=True).mean().sqrt()
        known += term["weight"] * ((scores - scores.mean()) / unit).flatten()
    found = open_reward(open_artifact(tmp_path / "sum", step="reward"), "cpu").rate(frames, 8.0)
    assert torch.allclose(found.score.double(), known, atol=1e-4)
    assert set(found.aspects) == {"reward", "other"}
    assert made.metrics["reward/weight"] == 2.0 and made.metrics["parts"] == 2.0
    config = json.loads((tmp_path / "sum" / "config.json").read_text())
    assert config["calibration"] == {
        "of": "samples", "generator": open_artifact(generator).manifest.digest, "clips": 12, "groups": 3,
    }  # fmt: skip


def test_a_sum_of_videos_twice_the_same_part_and_of_a_sum(tmp_path: Path, untrained: Path) -> None:
    (tmp_path / "clips").mkdir()
    for place in range(9):
        write_video(Clip(world(1, seed=place)[0], 8.0), tmp_path / "clips" / f"{place}.mp4", scale=1)
    base = CPU | {"clips": [str(tmp_path / "clips")]}
    half = {"reward": str(untrained), "weight": 0.5}
    combine(CombineParams.model_validate(base | {"terms": [half, half]}), out=tmp_path / "sum")
    nested = [{"reward": str(tmp_path / "sum"), "weight": 3.0}]
    combine(CombineParams.model_validate(base | {"terms": nested}), out=tmp_path / "nested")
    files = [Source(str(tmp_path / "clips" / f"{place}.mp4")) for place in range(9)]
    one, two, three = (
        torch.tensor([result.score for result in score_files(open_reward(place, "cpu"), files)]).double()
        for place in (untrained, tmp_path / "sum", tmp_path / "nested")
    )
    assert torch.allclose(two, (one - one.mean()) / one.std(), atol=1e-3)
    assert torch.allclose(three, 3.0 * two, atol=1e-3)
    assert sorted(path.name for path in (tmp_path / "sum" / "parts").iterdir()) == ["reward", "reward-2"]


def test_what_a_sum_lacks_is_said(tmp_path: Path, untrained: Path, generator: Path) -> None:
    terms = [{"reward": str(untrained), "weight": 1.0}]
    with pytest.raises(InputError, match="--generator or --clips"):
        combine(CombineParams.model_validate(CPU | {"terms": terms}), out=tmp_path / "sum")
    video = tmp_path / "v.mp4"
    write_video(Clip(world(1)[0], 8.0), video, scale=1)
    given = CombineParams.model_validate(CPU | {"terms": terms, "clips": [str(video)] * 3})
    with pytest.raises(InputError, match=r"3 clips in 1 group.*too few"):
        combine(given, out=tmp_path / "sum")
    broken = CombineParams.model_validate(CPU | {"terms": terms, "clips": [str(video), "gone.mp4"]})
    with pytest.raises(InputError, match=r"gone\.mp4: no such file"):
        combine(broken, out=tmp_path / "sum")
    lonely = CombineParams.model_validate(CPU | {"terms": terms, "clips": [str(video)] * 9})
    with pytest.raises(InputError, match="do not differ"):
        combine(lonely, out=tmp_path / "sum")
    with pytest.raises(InputError, match="no effect without --generator"):
        import_model(params(model=str(write_videomae(tmp_path / "m"))), out=tmp_path / "r", corpus="c")


def test_parts_that_their_gate_refused_are_not_taken(tmp_path: Path, untrained: Path) -> None:
    given = StepParams.model_validate(CPU)
    with (
        pytest.raises(GateRefused),
        publish(str(tmp_path / "bad"), step="reward", params=given, inputs={}) as workspace,
    ):
        for name in ("config.json", "model.safetensors", "metrics.json"):
            shutil.copyfile(untrained / name, workspace.dir / name)
        workspace.publish_on_refusal = True
        raise GateRefused("ranks badly")
    terms = [{"reward": str(tmp_path / "bad"), "weight": 1.0}]
    with pytest.raises(InputError, match="refused by its quality gate"):
        combine(CombineParams.model_validate(CPU | {"terms": terms, "clips": ["x"]}), out=tmp_path / "sum")


@pytest.mark.slow
def test_a_measured_reward_has_a_card_and_a_gate(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    """Random weights rank nothing: the card says so, the gate refuses, and nothing is aligned to it."""
    write_videomae(tmp_path / "source")
    small = {"card": {"contents_per_type": 1, "attacks": 4, "baselines": False}}
    given = params(model=str(tmp_path / "source"), **small)
    with pytest.raises(GateRefused, match="srcc"):
        import_model(given, out=tmp_path / "reward", corpus=str(inputs[0]), generator=str(inputs[1]))
    with pytest.raises(InputError, match="refused"):
        open_artifact(tmp_path / "reward", step="reward")
    refused = open_artifact(tmp_path / "reward", step="reward", allow_refused=True)
    assert {"card.json", "card.md", "model/model.safetensors"} <= set(refused.manifest.files)
    metrics = refused.metrics()
    assert metrics["measured"] == 1.0 and metrics["gate_passed"] == 0.0 and -1 <= metrics["srcc_all"] <= 1
    assert set(refused.manifest.inputs) == {"model", "corpus", "generator"}
