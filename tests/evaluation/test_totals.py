"""Totals against the row VBench's authors published for VideoCrafter-2.0 (per cent)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.evaluation.totals import QUALITY, SEMANTIC, Raw, read_raw, scale, totals
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
    assert read_raw(file) == {"temporal_flickering": Raw(0.98), "motion_smoothness": Raw(0.97, "ILK")}


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", '{"color": ["high", []]}', '{"color": [NaN, []]}', '{"color": true}']
)
def test_a_bad_results_file_is_one_clear_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"bad\.json"):
        read_raw(file)


def test_a_missing_results_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        read_raw(tmp_path / "none.json")
