"""Result files against each other: pairing, verdicts, margins; and VBench's file format both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from components.evaluation.__main__ import app
from components.evaluation.comparison import result_files
from components.evaluation.vbench.files import VBenchResult, VideoResult, read_results, write_results
from components.runtime.errors import InputError

RESAMPLES = result_files.AnalysisPlan(resamples=2000)


def write(file: Path, **dimensions: dict[str, Any]) -> Path:
    """A file as VBench writes it, from {dimension: {video name: value}}."""
    found = {}
    for name, videos in dimensions.items():
        scale = 100 if name == "imaging_quality" else 1
        entries = [{"video_path": f"x/{key}", "video_results": one} for key, one in videos.items()]
        found[name] = [float(np.mean([float(one) / scale for one in videos.values()])), entries]
    file.write_text(json.dumps(found))
    return file


def videos(values: Any, prompts: int = 20) -> dict[str, Any]:
    return {f"prompt {place % prompts}-{place // prompts}.mp4": one for place, one in enumerate(values)}


def test_a_shift_beyond_the_noise_is_seen_and_a_loss_within_the_margin_is_not_inferior(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.7, 0.9, 60)
    up, down = base + rng.normal(0.05, 0.01, 60), base - rng.normal(0.005, 0.001, 60)
    before = write(
        tmp_path / "base_eval_results.json",
        color=videos(base),
        scene=videos(base),
        object_class=videos(base),
        imaging_quality=videos(100 * base),
    )
    after = write(
        tmp_path / "new_eval_results.json",
        color=videos(up),
        scene=videos(down),
        object_class=videos(base - rng.normal(0.2, 0.01, 60)),
        imaging_quality=videos(100 * up),
    )
    found = result_files.run([before, after], RESAMPLES).changes["new"]
    assert list(found) == ["imaging_quality", "object_class", "color", "scene"]
    assert found["color"].paired.difference.value == pytest.approx(np.mean(up - base))
    assert found["imaging_quality"].paired.difference.value == pytest.approx(np.mean(up - base))
    assert {name: one.verdict for name, one in found.items()} == {
        "imaging_quality": "better",
        "object_class": "inferior",
        "color": "better",
        "scene": "worse, within the margin",
    }
    assert found["scene"].margin == pytest.approx(0.03 * 0.8222)
    assert found["color"].paired.wins + found["color"].paired.losses == 60


def test_noise_and_no_difference_at_all_are_left_open_and_prompts_are_what_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    base = rng.uniform(0, 1, 60)
    by_prompt = np.tile(rng.normal(0, 0.2, 20), 3)
    before = write(tmp_path / "a.json", color=videos(base), scene=videos(base))
    after = write(tmp_path / "b.json", color=videos(base + by_prompt), scene=videos(base))
    found = result_files.run([before, after], RESAMPLES).changes["b"]
    assert found["color"].verdict == "open"
    half = (found["color"].paired.difference.high - found["color"].paired.difference.low) / 2
    # Three videos of a prompt that move together are one observation: t s / sqrt(20), not sqrt(60).
    assert half == pytest.approx(2.093 * by_prompt[:20].std(ddof=1) / np.sqrt(20), rel=0.1)
    # Of 20 prompts that never differed, .168 may: 1 - .025^(1/20).
    assert found["scene"].verdict == "open"
    assert found["scene"].paired.difference.low == pytest.approx(0.025 ** (1 / 20) - 1)
    assert (found["scene"].paired.ties, found["scene"].p_holm) == (60, 1.0)


def test_several_candidates_share_one_correction(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    base = rng.uniform(0.4, 0.6, 40)
    files = [write(tmp_path / "base.json", color=videos(base))]
    for name in ("one", "two", "three"):
        files.append(write(tmp_path / f"{name}.json", color=videos(base + rng.normal(0.008, 0.03, 40))))
    alone = result_files.run(files[:2], RESAMPLES).changes["one"]["color"]
    together = result_files.run(files, RESAMPLES).changes["one"]["color"]
    assert together.paired == alone.paired
    assert together.p_holm >= alone.p_holm


def test_margins_are_the_callers(tmp_path: Path) -> None:
    base = np.full(30, 0.5)
    lower = base - np.random.default_rng(3).normal(0.05, 0.005, 30)
    before = write(tmp_path / "a.json", color=videos(base), scene=videos(base))
    after = write(tmp_path / "b.json", color=videos(lower), scene=videos(lower))
    plan = result_files.AnalysisPlan(margins={"color": 0.1}, resamples=2000)
    found = result_files.run([before, after], plan).changes["b"]
    assert found["color"].not_inferior
    assert found["scene"].inferior


@pytest.mark.parametrize("prompts", [1, 9])
def test_few_prompts_get_no_verdict(tmp_path: Path, prompts: int) -> None:
    """One prompt of 40 videos, all of them worse by far: no one else's prompt is known to be."""
    rng = np.random.default_rng(4)
    base = rng.uniform(0.7, 0.9, 360)
    before = write(tmp_path / "a.json", color=videos(base, prompts))
    after = write(tmp_path / "b.json", color=videos(base - rng.normal(0.3, 0.01, 360), prompts))
    found = result_files.run([before, after], RESAMPLES)
    change = found.changes["b"]["color"]
    assert change.verdict == f"not shown: {prompts} prompts, 10 needed"
    assert not (change.worse or change.inferior or change.not_inferior)
    assert "[not shown]" in result_files.as_table(found)
    assert json.loads(json.dumps(result_files.as_json(found), allow_nan=False))


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    before = write(
        tmp_path / "a.json",
        color={"a-0.mp4": 0.5, "b-0.mp4": 0.5},
        scene={"a-0.mp4": 1},
        human_action={"a-0.mp4": True},
    )
    after = write(
        tmp_path / "b.json",
        color={"a-0.mp4": 0.6, "c-0.mp4": 0.1},
        scene={"z-0.mp4": 1},
        dynamic_degree={"a-0.mp4": False},
    )
    found = result_files.run([before, after], RESAMPLES)
    assert found.changes["b"]["color"].unpaired == 2
    assert found.changes["b"]["color"].paired.pairs == 1
    assert found.skipped["b"] == {
        "dynamic_degree": "only in the candidate",
        "human_action": "only in the base",
        "scene": "no video of the same name in both",
    }
    table = result_files.as_table(found)
    assert "2 videos are in one file only" in table
    assert "do not say whether the seeds are the same" in table
    assert max(map(len, table.splitlines())) < 135


def test_measurements_of_different_methods_are_not_compared(tmp_path: Path) -> None:
    for name, method in (("a", ""), ("b", "RAFT replaced")):
        write_results(
            tmp_path / f"{name}.json", {"color": VBenchResult(0.5, (VideoResult("p-0.mp4", 0.5),), method)}
        )
    with pytest.raises(InputError, match="color: measured by VBench and by RAFT replaced"):
        result_files.run([tmp_path / "a.json", tmp_path / "b.json"], RESAMPLES)


def test_our_variant_is_not_compared_with_the_published_one(tmp_path: Path) -> None:
    for name, variant in (("a", ""), ("b", "ours"), ("c", "ours")):
        entries = {"color": VBenchResult(0.5, (VideoResult("p-0.mp4", 0.5),), variant=variant)}
        write_results(
            tmp_path / f"{name}.json", entries | {"scene": VBenchResult(0.5, (VideoResult("p-0.mp4", 0.5),))}
        )
    found = result_files.run([tmp_path / "a.json", tmp_path / "b.json"], RESAMPLES)
    assert found.skipped["b"] == {"color": "measured by VBench and by our variant"}
    both = result_files.run([tmp_path / "b.json", tmp_path / "c.json"], RESAMPLES)
    assert {name: one.measured for name, one in both.changes["c"].items()} == {
        "color": "our variant",
        "scene": "",
    }
    assert "color: not VBench's: our variant" in result_files.as_table(both)


@pytest.mark.parametrize(
    ("score", "video", "message"),
    [
        (92.0, 92.0, "color is 92; .* per cent"),
        (0.92, 92.0, "color is 92; .* per cent"),
    ],
)
def test_percentages_are_refused(tmp_path: Path, score: float, video: float, message: str) -> None:
    sound = write(tmp_path / "a.json", color={"p-0.mp4": 0.9})
    write_results(tmp_path / "b.json", {"color": VBenchResult(score, (VideoResult("p-0.mp4", video),))})
    with pytest.raises(InputError, match=rf"b\.json: {message}"):
        result_files.run([sound, tmp_path / "b.json"], RESAMPLES)


def test_imaging_quality_on_the_wrong_scale_is_refused(tmp_path: Path) -> None:
    """VBench writes the videos of this dimension on 0..100."""
    sound = write(tmp_path / "a.json", imaging_quality={"p-0.mp4": 65.0})
    (tmp_path / "b.json").write_text(
        json.dumps({"imaging_quality": [0.65, [{"video_path": "p-0.mp4", "video_results": 0.65}]]})
    )
    with pytest.raises(InputError, match=r"b\.json: the videos of imaging_quality have figures of 0\.\.1"):
        result_files.run([sound, tmp_path / "b.json"], RESAMPLES)


def test_seeds_that_differ_are_said(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        entry = VideoResult("p-0.mp4", 0.5, {"seed": seed})
        write_results(tmp_path / f"{name}.json", {"color": VBenchResult(0.5, (entry,))})
    found = result_files.run([tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"], RESAMPLES)
    assert found.changes["b"]["color"].seeds is True
    assert found.changes["c"]["color"].seeds is False
    assert "some pairs do not share their seed" in result_files.as_table(found)


def test_what_was_read_is_written_back_the_same(tmp_path: Path) -> None:
    theirs = {
        "imaging_quality": [0.65, [{"video_path": "v/a-0.mp4", "video_results": 65.0}]],
        "human_action": [1.0, [{"video_path": "v/a-0.mp4", "video_results": True, "cor_num_per_video": 1}]],
        "scene": [
            0.5,
            [{"video_path": "v/a-0.mp4", "video_results": 0.5, "success_frame_count": 8, "frame_count": 16}],
        ],
    }
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps(theirs))
    found = read_results(file)
    assert found["imaging_quality"].videos[0].value == pytest.approx(0.65)
    assert found["scene"].videos[0].more == {"success_frame_count": 8, "frame_count": 16}
    write_results(tmp_path / "ours.json", found)
    assert json.loads((tmp_path / "ours.json").read_text()) == theirs  # 1 == True in Python


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"color": 0.5}',
        '{"color": ["x", []]}',
        '{"color": [0.5, [{"video_path": "a"}]]}',
        '{"color": [0.5, [3]]}',
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"results file .*bad\.json"):
        read_results(file)


def test_the_verb(tmp_path: Path) -> None:
    base = np.linspace(0.2, 0.8, 30)
    files = [
        str(write(tmp_path / "base_eval_results.json", color=videos(base))),
        str(write(tmp_path / "new_eval_results.json", color=videos(base + 0.1))),
    ]
    quick = ["--set", "evaluation.resamples=1000"]
    shown = CliRunner().invoke(app, ["compare", *files, *quick, "--margin", "color=0.05"])
    assert shown.exit_code == 0, shown.output
    assert "new against base" in shown.output
    assert "30/0/0" in shown.output
    assert "color 5 %" in shown.output
    found = json.loads(CliRunner().invoke(app, ["compare", *files, *quick, "--json"]).output)
    assert found["candidates"]["new"]["dimensions"]["color"]["verdict"] == "better"
    for arguments, message in (
        (["compare", files[0]], "two result files or more"),
        (["compare", files[0], files[0]], "named twice"),
        (["compare", *files, "--margin", "colour=1"], "--margin colour=1"),
    ):
        wrong = CliRunner().invoke(app, arguments)
        assert isinstance(wrong.exception, InputError)
        assert message in str(wrong.exception)
