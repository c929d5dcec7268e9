"""The page as a file: it says what it was given, and is made of files that the package ships."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from components.evaluation.report import page
from components.evaluation.report.page import render
from components.evaluation.report.reward_section import LARGEST_PLOT, read_log, read_reward
from components.reward.refresh.versions import read_versions
from components.runtime.errors import InputError
from components.runtime.io.page_slots import DECISION, OUTCOME, fill
from components.runtime.tracking import step_run as tracking
from pipelines.steps import step
from tests.evaluation.report.conftest import FPS, NASTY, PAIRS, card, counted, judged, page_content, sides

ROOT = Path(page.__file__).parents[3]


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return card(tmp_path_factory.mktemp("made") / "reward")


def text(file_or_page: str) -> str:
    """What a reader sees, in one line."""
    body = re.sub(r"(?s)<(style|script)>.*?</\1>", "", file_or_page)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_names_and_prompts_are_text_and_nothing_else(page_file: Path) -> None:
    found = page_file.read_text()
    assert NASTY not in found
    assert found.count("<script>") == 1
    assert "&lt;script&gt;window.broken" in found


def test_everything_it_was_given_is_said(reward: Path) -> None:
    found = text(render(page_content(reward, shown=[]), *counted(), FPS))
    for words in (
        "Worth promoting",
        "Srcc footage is 0.400, must be at least 0.5.",
        "refused 1 of 3 requirements met, 1 could not be measured",
        "0.49 to 0.72, inside 32 prompts; 76 % of pairs in its order",
        "Never fooled, on any clip: frozen.",
        "axis 0.4 to 1; dashed: 0.93, what the gate asks",
        "desaturate on footage (rank correlation \N{MINUS SIGN}0.30), "
        "ghost on generated (37 % of pairs in order).",
        "scene Needs the weights of Tag2Text.",
        "spread One member only.",
        "c0ffeec0ffee",
        "2030-01-02 03:04 UTC",
        "1 more curves",
    ):
        assert words in found, words


def test_against_promotion_the_reasons_come_first(reward: Path) -> None:
    base, aligned = sides(motion=np.full(PAIRS, 0.5), judge=None)
    found = render(
        page_content(reward, judged(replace(base, judge=None), aligned), shown=[]), *counted(), FPS
    )
    words = text(found)
    assert "Not worth promoting" in words.split("Why not")[0]
    start = words.index("Why not")
    assert (
        start
        < words.index("Motion ratio is 0.250")
        < words.index("No oracle judge can")
        < words.index("Clips Each")
    )
    assert "unavailable for these prompts" in words


def test_weakest_attack_first_and_a_missing_share_is_left_out(reward: Path) -> None:
    found = read_reward(reward, {})
    assert [name for name, _ in found.attacks] == ["blank", "few_steps"]
    assert found.harmless == ["frozen"]
    assert found.sources == ["world", "generated"]
    assert (found.labelled, found.resisted) == (["world"], 0.93)
    assert [plot.title for plot in found.plots] == ["Labels"]
    assert found.log["loss"] == [1.5, 0.5]


def test_a_reward_without_a_card_shows_its_figures(tmp_path: Path) -> None:
    found = read_reward(tmp_path, {"srcc_world": 0.9, "rmse": 0.25})
    assert (found.card, found.first, found.rest) == (None, [("srcc_world", 0.9)], [("rmse", 0.25)])
    words = text(render(page_content(tmp_path, shown=[]), *counted(), FPS))
    assert "The reward artifact holds no card; these are its metrics." in words
    assert "srcc world 0.910" in words


def test_a_plot_too_large_for_the_page_is_named(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "huge.png").write_bytes(b"0" * (LARGEST_PLOT + 1))
    assert read_reward(tmp_path, {}).left_out == ["huge.png"]
    assert "Too large for this page: huge.png" in text(
        render(page_content(tmp_path, shown=[]), *counted(), FPS)
    )


@pytest.mark.parametrize("content", ["[1]", "{", '{"gate": {"passed": "perhaps"}}'])
def test_what_is_not_a_card_is_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(InputError, match=r"card\.json: not a reward card: ") as caught:
        read_reward(tmp_path, {})
    assert "\n" not in str(caught.value)


def test_versions_of_the_reward(tmp_path: Path, reward: Path) -> None:
    assert read_versions(tmp_path / "reward") == []
    (tmp_path / "reward").mkdir()
    file = tmp_path / "reward" / "versions.json"
    file.write_text(
        '{"versions": [{"number": 0, "digest": "x"},'
        ' {"number": 1, "digest": "y", "iteration": 7, "adopted": false, "reasons": ["srcc_all fell"]}]}'
    )
    words = text(
        render(page_content(reward, shown=[], versions=read_versions(tmp_path / "reward")), *counted(), FPS)
    )
    assert "refused version 1, iteration 7: srcc all fell" in words
    file.write_text("{}")
    with pytest.raises(InputError, match=r"versions\.json: not a record of reward versions"):
        read_versions(tmp_path / "reward")


def test_a_judge_that_neither_could_ask_is_listed_once(tmp_path: Path) -> None:
    folder = card(tmp_path / "reward")
    content = json.loads((folder / "card.json").read_text())
    content["unavailable"] = {"judge": "the sampled prompts are not of the miniature world"}
    (folder / "card.json").write_text(json.dumps(content))
    base, aligned = (replace(side, judge=None, unavailable={}) for side in sides())
    made = page_content(folder, judged(base, aligned), base=base, shown=[])
    words = text(render(made, *counted(), FPS))
    assert "1 figure is absent" in words
    assert "oracle judge The oracle judge reads scenes of the miniature world" in words
    assert "the sampled prompts are not" not in words.lower()


def test_the_loss_is_explained_by_the_alignments_params(reward: Path) -> None:
    made = page_content(reward, shown=[])
    params = {"loss": "dpop", "sft_weight": 0.2}
    source = made.sources["reward"].model_copy(update={"step": "alignment", "params": params})
    words = text(render(replace(made, sources={"alignment": source}), *counted(), FPS))
    assert "plus 0.2 times the winner&#39;s denoising error" in words


def test_the_registrys_decision_has_its_two_slots(page_file: Path) -> None:
    page = page_file.read_text(encoding="utf-8")
    for name in (OUTCOME, DECISION):
        filled = fill(page, name, NASTY)
        assert filled is not None and NASTY not in filled
        assert "window.broken = 1" in filled
    assert "Not decided when this page was written." in text(page)


def test_a_log_with_odd_cells_is_read(tmp_path: Path) -> None:
    file = tmp_path / "training.csv"
    file.write_text("iteration,loss,note\n1,0.7,start\n2,,x\n3,0.5,\n")
    log = read_log(file)
    assert log["iteration"] == [1, 2, 3]
    assert log["loss"][0] == 0.7
    assert np.isnan(log["loss"][1])
    assert read_log(tmp_path / "none.csv") == {}


@pytest.mark.parametrize(
    ("value", "sign", "shown"),
    [
        (-0.00001, True, "0.000"),
        (0.0, True, "0.000"),
        (0.25, True, "+0.250"),
        (-2.0, False, "\N{MINUS SIGN}2.000"),
        (None, False, "n/a"),
    ],
)
def test_figures(value: float | None, sign: bool, shown: str) -> None:
    assert page._figure(value, sign=sign) == shown


def test_every_file_of_the_page_is_package_data() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["components.evaluation"]
    package = ROOT / "components" / "evaluation"
    files = [file for file in package.rglob("*") if file.suffix in {".j2", ".css", ".js"}]
    assert len(files) >= 8
    assert all(
        any(fnmatch(str(file.relative_to(package)), pattern) for pattern in patterns) for file in files
    )


def test_mlflow_keeps_it_and_kubeflow_shows_it() -> None:
    assert any(fnmatch("report.html", pattern) for pattern in tracking._SHOWN_PAGES)
    shown = step("evaluation").shown["report"]
    assert (shown.kind, shown.file) == ("HTML", "report.html")
