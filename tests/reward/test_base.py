"""Opening a reward of any kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from components.reward.base import check_clips, input_spec_of, scoring_files
from components.reward.scoring.load import open_reward
from components.reward.scoring.trained import TrainedReward
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.errors import InputError
from tests.reward.conftest import world


def test_a_trained_reward_opens_as_its_scorer(untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = world(3)
    known = TrainedReward.load(untrained, "cpu").score(clips, 8.0)
    for opened in (open_reward(untrained, "cpu"), open_reward(open_artifact(untrained), torch.device("cpu"))):
        assert torch.equal(opened.score(clips, 8.0, ["a"] * 3), known)
    assert capsys.readouterr().err == ""
    assert input_spec_of(opened).short_side == 4 * 32


def test_an_unmeasured_reward_says_so(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((untrained / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "kind": "ladders", "measured": False}))
    (tmp_path / "model.safetensors").write_bytes((untrained / "model.safetensors").read_bytes())
    open_reward(tmp_path, "cpu")
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and "unmeasured" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"kind": "oracle"}', "'oracle': must be one of ladders, transformers, weighted"),
        ("[]", "JSON object"),
        ("{", "not the description"),
        ('{"kind": "transformers"}', "not the description of a regressor"),
        ('{"kind": "weighted"}', "not the description of a sum"),
        (None, "No such file"),
    ],
)
def test_what_is_no_reward_names_the_file(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        open_reward(tmp_path, "cpu")
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


def test_cards_and_pictures_decide_no_score() -> None:
    names = [
        "card.json",
        "config.json",
        "metrics.json",
        "model.safetensors",
        "plots/curve.png",
        "timing.json",
    ]
    names += ["refresh/replay.safetensors"]
    assert scoring_files(names) == ["config.json", "model.safetensors"]
    names = ["config.json", "model/config.json", "model/tokenizer.json", "parts/a/model.safetensors"]
    assert scoring_files([*names, "metrics.json"]) == names


@pytest.mark.parametrize(
    ("shape", "fps", "prompts", "said"),
    [
        ((5, 3, 8, 8), 8.0, None, "must be"),
        ((1, 1, 3, 8, 8), 8.0, None, "T >= 2"),
        ((1, 2, 3, 0, 8), 8.0, None, "must be"),
        ((1, 2, 3, 8, 8), float("nan"), None, "frame rate"),
        ((2, 2, 3, 8, 8), 8.0, ["one"], "1 prompts for 2 clips"),
    ],
)
def test_clips_that_no_reward_takes(
    shape: tuple[int, ...], fps: float, prompts: list[str] | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        check_clips(torch.zeros(shape), fps, prompts)
