"""Pieces of the report page."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import torch

from components.evaluation.report import charts, choose_pairs, read_log
from components.evaluation.report.page import beside


def test_pairs_are_chosen_by_rule_and_none_twice() -> None:
    difference = np.array([0.1, -0.5, 0.9, 0.0, 0.4, -0.1, 0.2, 0.3, -0.9, 0.5])
    chosen = choose_pairs(difference, 3, np.random.default_rng(0))
    assert chosen["best"] == [2, 9, 4]
    assert chosen["worst"] == [8, 1, 5]
    assert len(chosen["random"]) == 3
    everything = [place for places in chosen.values() for place in places]
    assert len(set(everything)) == 9


def test_few_pairs_are_shown_once_each() -> None:
    for number in (1, 2, 3, 4):
        chosen = choose_pairs(np.arange(number, dtype=float), 4, np.random.default_rng(0))
        everything = [place for places in chosen.values() for place in places]
        assert len(set(everything)) == len(everything)
        assert chosen["best"][0] == number - 1


def test_a_log_with_odd_cells_is_read(tmp_path: Path) -> None:
    file = tmp_path / "training.csv"
    file.write_text("iteration,loss,note\n1,0.7,start\n2,,x\n3,0.5,\n")
    log = read_log(file)
    assert log["iteration"] == [1, 2, 3]
    assert log["loss"][0] == 0.7
    assert math.isnan(log["loss"][1])
    assert read_log(None) == read_log(tmp_path / "none.csv") == {}


def test_curves_draw_the_known_columns_and_leave_gaps() -> None:
    log = {
        "iteration": [1.0, 2.0, 3.0, 4.0],
        "loss": [0.7, math.nan, 0.5, 0.4],
        "unknown": [1.0] * 4,
        "accuracy": [math.nan] * 4,
    }
    found = charts.curves(log)
    assert [(title, names) for title, names, _ in found] == [("Loss", ["loss"])]
    lines = ET.fromstring(str(found[0][2])).findall("polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [1, 2]


def test_a_flat_curve_and_a_single_point_are_drawn() -> None:
    for values in ([1.0, 1.0], [0.0]):
        drawn = str(charts.line_chart("t", list(range(len(values))), {"a": values}))
        assert "nan" not in drawn
        ET.fromstring(drawn)


def test_chart_texts_are_escaped() -> None:
    drawn = str(charts.line_chart('<b>"', [0.0, 1.0], {"<i>": [0.0, 1.0]}))
    assert "<b>" not in drawn
    ET.fromstring(drawn)


def test_bars_stay_inside() -> None:
    widths = [
        float(rect.attrib["width"]) for rect in ET.fromstring(str(charts.bars(-0.5, 1.5))).findall("rect")
    ]
    assert widths == [100, 0, 100]


def test_both_halves_share_one_clip() -> None:
    base, aligned = (
        torch.zeros(9, 3, 48, 48, dtype=torch.uint8),
        torch.full((9, 3, 48, 48), 255, dtype=torch.uint8),
    )
    clip = beside(base, aligned, 8.0)
    assert (clip.num_frames, clip.height, clip.width) == (9, 192, 392)
    assert clip.frames[..., :192].max() == 0
    assert clip.frames[..., -192:].min() == 255
