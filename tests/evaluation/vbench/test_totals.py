"""Totals against the row VBench's authors published for VideoCrafter-2.0 (per cent)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.evaluation.__main__ import app
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.vbench.files import VBenchResult, read_results
from components.evaluation.vbench.totals import file_totals, scale, totals
from components.runtime.errors import InputError

VIDEOCRAFTER2 = {
    "subject_consistency": 96.85,
    "background_consistency": 98.22,
    "temporal_flickering": 98.41,
    "motion_smoothness": 97.73,
    "dynamic_degree": 42.50,
    "aesthetic_quality": 63.13,
    "imaging_quality": 67.22,
    "object_class": 92.55,
    "multiple_objects": 40.66,
    "human_action": 95.00,
    "color": 92.92,
    "spatial_relationship": 35.86,
    "scene": 55.29,
    "appearance_style": 25.13,
    "temporal_style": 25.84,
    "overall_consistency": 28.23,
}


def test_published_row() -> None:
    result = totals({name: value / 100 for name, value in VIDEOCRAFTER2.items()})
    assert result.missing == ()
    assert result.quality == pytest.approx(0.8220, abs=5e-5)
    assert result.semantic == pytest.approx(0.7342, abs=5e-5)
    assert result.total == pytest.approx(0.8044, abs=5e-5)


@pytest.mark.parametrize("name", QUALITY + SEMANTIC)
def test_a_missing_dimension_leaves_its_totals_absent(name: str) -> None:
    result = totals({key: value / 100 for key, value in VIDEOCRAFTER2.items() if key != name})
    assert result.missing == (name,)
    assert result.total is None
    assert (result.quality is None) == (name in QUALITY)
    assert (result.semantic is None) == (name in SEMANTIC)


def test_scaling_is_not_clipped() -> None:
    assert scale("motion_smoothness", 1.0) > 1
    assert scale("temporal_flickering", 0.5) < 0
    assert scale("dynamic_degree", 0.4) == 0.4


def test_unknown_names_do_not_enter() -> None:
    assert totals({"direction": 0.5}).scaled == {}


def test_reads_a_results_file_and_keeps_other_methods_apart(tmp_path: Path) -> None:
    file = tmp_path / "x_eval_results.json"
    file.write_text(
        json.dumps(
            {
                "temporal_flickering": [0.98, [{"video_path": "a-0.mp4", "video_results": 0.98}]],
                "motion_smoothness": [
                    0.97,
                    [{"video_path": "a-0.mp4", "video_results": 0.97, "method": "ILK"}],
                ],
            }
        )
    )
    assert read_results(file, with_videos=False) == {
        "temporal_flickering": VBenchResult(0.98),
        "motion_smoothness": VBenchResult(0.97, method="ILK"),
    }


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", '{"color": ["high", []]}', '{"color": [NaN, []]}', '{"color": true}']
)
def test_a_bad_results_file_is_one_clear_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"bad\.json"):
        read_results(file, with_videos=False)


def test_a_missing_results_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        read_results(tmp_path / "none.json", with_videos=False)


def file_of(file: Path, marks: dict[str, dict[str, str]] | None = None) -> Path:
    """The published row as a results file, its videos with the marks given by dimension."""
    found = {}
    for name, value in VIDEOCRAFTER2.items():
        figure = value if name == "imaging_quality" else value / 100
        video = {"video_path": "a-0.mp4", "video_results": figure} | (marks or {}).get(name, {})
        found[name] = [value / 100, [video]]
    file.write_text(json.dumps(found))
    return file


def shown(file: Path) -> tuple[str, dict[str, object]]:
    """The verb's text and its JSON."""
    text = CliRunner().invoke(app, ["totals", "--results", str(file)]).output
    return text, json.loads(CliRunner().invoke(app, ["totals", "--results", str(file), "--json"]).output)


#: Dimensions of which there are two variants by models that VBench uses.
TWOFOLD = ("temporal_flickering", "dynamic_degree", "imaging_quality")


def test_a_file_of_vbenchs_own_has_the_official_totals(tmp_path: Path) -> None:
    text, found = shown(file_of(tmp_path / "a.json"))
    figures = [found[key] for key in ("quality", "semantic", "total")]
    assert figures == pytest.approx([82.20, 73.42, 80.44], abs=0.005)
    assert found["missing"] == [] and "with_substitutes" not in found
    assert "n/a" not in text and "with" not in text
    assert text.split()[-6:] == ["quality", "82.20", "semantic", "73.42", "total", "80.44"]


def test_our_variants_are_in_no_official_total(tmp_path: Path) -> None:
    names = [name for name, providers in catalogue().items() if any(one.variant for one in providers)]
    names = [name for name in names if name in VIDEOCRAFTER2]
    assert set(TWOFOLD) <= set(names)
    text, found = shown(file_of(tmp_path / "a.json", {name: {"variant": "ours"} for name in names}))
    assert (found["quality"], found["semantic"], found["total"]) == (None, None, None)
    ours = found["with_our_variants"]
    assert isinstance(ours, dict) and ours["total"] == pytest.approx(80.44, abs=0.005)
    assert "total n/a 80.44 with our variants, not comparable with published" in " ".join(text.split())


def test_substitutes_are_in_no_official_total(tmp_path: Path) -> None:
    text, found = shown(file_of(tmp_path / "a.json", {"scene": {"method": "BLIP captions"}}))
    assert found["quality"] == pytest.approx(82.20, abs=0.005)
    assert (found["semantic"], found["total"], found["missing"]) == (None, None, ["scene"])
    assert found["with_substitutes"]["total"] == pytest.approx(80.44, abs=0.005)  # type: ignore[index]
    assert "semantic n/a 73.42 with substitutes, not comparable with published" in " ".join(text.split())


def test_no_total_mixes_our_variants_with_published_ones(tmp_path: Path) -> None:
    marks = {"dynamic_degree": {"variant": "ours"}, "scene": {"method": "BLIP captions"}}
    text, found = shown(file_of(tmp_path / "a.json", marks))
    for key in ("with_our_variants", "with_substitutes"):
        one = found[key]
        assert isinstance(one, dict) and set(one.values()) == {None}
    assert "no total: dynamic_degree in our variant, temporal_flickering, imaging_quality" in text
    assert "measure all with one evaluation.compat" in text
    assert "80.44" not in text
    # A flow that stands in for RAFT has one variant only.
    raw = {
        "temporal_flickering": VBenchResult(0.9, variant="ours"),
        "dynamic_degree": VBenchResult(0.5, method="classical flow"),
    }
    assert not file_totals(raw, TWOFOLD).mixed


def test_a_part_of_the_dimensions_whose_videos_are_not_listed(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    substitute = [{"video_results": 0.5, "method": "captions"}]
    file.write_text(json.dumps({"color": [0.9, []], "scene": [0.5, substitute]}))
    text, found = shown(file)
    assert (found["total"], len(found["missing"])) == (None, 15)  # type: ignore[arg-type]
    assert (found["scaled"], found["measured_otherwise"]) == ({"color": 0.9}, {"scene": "captions"})
    assert "n/a  captions" in text


def test_per_cent_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({name: [value, []] for name, value in VIDEOCRAFTER2.items()}))
    with pytest.raises(
        InputError, match=r"a\.json: subject_consistency is 96\.85; .* per cent, divide by 100"
    ):
        read_results(file, with_videos=False)


def test_a_dimension_measured_in_two_ways_is_refused(tmp_path: Path) -> None:
    videos = [
        {"video_path": f"{method}-0.mp4", "video_results": 0.5, "method": method} for method in ("", "X")
    ]
    (tmp_path / "a.json").write_text(json.dumps({"color": [0.5, videos]}))
    with pytest.raises(InputError, match=r"color: some videos were measured by VBench, some by X"):
        read_results(tmp_path / "a.json", with_videos=False)
