"""Curves and marks: what is drawn lies where the figures say, and is said in words."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
import torch
from markupsafe import Markup

from components.alignment.objectives import OBJECTIVES
from components.alignment.objectives.base import PairErrors
from components.evaluation.report import charts
from components.evaluation.report import svg_marks as marks
from components.reward.card.card import Wins
from components.runtime.stats import Interval


def tree(drawn: Markup) -> ET.Element:
    return ET.fromstring(str(drawn))


def test_curves_draw_the_known_columns_and_leave_gaps() -> None:
    log = {
        "iteration": [1.0, 2.0, 3.0, 4.0],
        "loss": [0.7, math.nan, 0.5, 0.4],
        "unknown": [1.0] * 4,
        "rewards/accuracies": [math.nan] * 4,
        "reference_version": [0.0, 0.0, 1.0, 1.0],
    }
    found = charts.curves(log)
    assert [(one.title, one.names) for one in found] == [("Loss", ["loss"])]
    picture = tree(found[0].picture)
    lines = [
        [pair.split(",") for pair in line.attrib["points"].split()] for line in picture.findall("polyline")
    ]
    assert [len(line) for line in lines] == [1, 2]
    change = picture.find("line[@class='change']")
    assert change is not None
    assert change.attrib["x1"] == lines[1][0][0]
    assert picture.attrib["aria-label"] == "Loss: loss from 0.7 to 0.4, lowest 0.4, highest 0.7"


def test_points_lie_between_the_grid_lines_that_their_values_say() -> None:
    picture = tree(charts.line_chart("t", [0, 1, 2], {"a": [0.0, 5.0, 10.0]}))
    heights = {
        float(text.text.replace("\N{MINUS SIGN}", "-")): float(line.attrib["y1"])
        for text, line in zip(picture.findall("text"), picture.findall("line"), strict=False)
        if text.text
    }
    points = picture.findall("polyline")[0].attrib["points"].split()
    ys = [float(point.split(",")[1]) for point in points]
    assert ys[0] == pytest.approx(heights[0.0], abs=0.06)
    assert ys[2] == pytest.approx(heights[10.0], abs=0.06)
    assert ys[1] == pytest.approx((ys[0] + ys[2]) / 2, abs=0.06)


def test_a_flat_curve_and_a_single_point_are_drawn() -> None:
    for values in ([1.0, 1.0], [0.0]):
        drawn = charts.line_chart("t", list(range(len(values))), {"a": values})
        assert "nan" not in str(drawn)
        assert tree(drawn).findall("polyline")


def test_texts_are_escaped() -> None:
    share = Wins(won=1, clips=2, low=0.1, high=0.9)
    for drawn in (
        charts.line_chart('<b>"', [0.0, 1.0], {"<i>": [0.0, 1.0]}, "<u>"),
        marks.spans({'<b>"': share}, ['<b>"'], marks.Axis(0, 1), 0.5),
    ):
        assert "<b>" not in str(drawn)
        tree(drawn)


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0, "0"), (1234.0, "1234"), (-0.125, "\N{MINUS SIGN}0.125"), (0.12345, "0.123")]
)
def test_numbers(value: float, text: str) -> None:
    assert charts.number(value) == text


def test_bars_stay_inside() -> None:
    rects = tree(marks.bars(-0.5, 1.5)).findall("rect")
    assert [(rect.attrib["class"], float(rect.attrib["width"])) for rect in rects] == [
        ("track", 100),
        ("base", 0),
        ("aligned", 100),
    ]
    for value, width in ((0.25, 25), (-1.0, 0), (None, 0), (math.nan, 0)):
        assert float(tree(marks.bar(value)).findall("rect")[1].attrib["width"]) == width


def test_shares_add_up() -> None:
    picture = tree(marks.shares(3, 1, 4))
    assert [float(rect.attrib["width"]) for rect in picture.findall("rect")] == [37.5, 12.5, 50]
    assert picture.attrib["aria-label"] == "3 won, 1 tied, 4 lost"


def test_intervals_share_an_axis_around_zero_and_say_which_way_they_point() -> None:
    up, across, down = Interval(0.2, 0.1, 0.3), Interval(0.0, -0.1, 0.1), Interval(-0.3, -0.4, -0.2)
    axis = marks.axis([up, across, down], [-0.03])
    assert (axis.at(0), axis.high) == (50, pytest.approx(0.432))
    kinds = []
    for one in (up, across, down):
        span = tree(marks.interval(one, axis, -0.03)).findall("line")[2]
        kinds.append(span.attrib["class"])
        assert float(span.attrib["x1"]) == pytest.approx(50 + 50 * one.low / axis.high, abs=0.01)
        assert float(span.attrib["x2"]) == pytest.approx(50 + 50 * one.high / axis.high, abs=0.01)
    assert kinds == ["span up", "span level", "span down"]
    unknown = Interval(math.nan, math.nan, math.nan)
    assert marks.axis([unknown]).high > 0
    assert len(tree(marks.interval(unknown, axis)).findall("line")) == 1


def test_a_source_keeps_its_colour_where_others_are_missing() -> None:
    share = Wins(won=9, clips=10, low=0.6, high=1.0)
    empty = Wins(won=0, clips=0)
    picture = tree(marks.spans({"c": share, "a": empty}, ["a", "b", "c"], marks.Axis(0.5, 1.0), 0.9))
    spans = [line for line in picture.findall("line") if line.attrib["class"].startswith("span")]
    assert [(line.attrib["class"], line.attrib["x1"], line.attrib["x2"]) for line in spans] == [
        ("span series-2", "20.00", "100.00")
    ]
    assert picture.attrib["aria-label"] == "c 0.9 (0.6 to 1)"


@pytest.mark.parametrize(
    "values",
    [
        [1.1601, 1.1604, 1.1612],
        [0.00011, 0.00013, 0.00012],
        [-3.0, 0.0, 3.0],
        [12345.1, 12345.2, 12345.35],
        [0.0125, 0.0126, 0.0131],
    ],
)
def test_ticks_differ_and_say_their_place(values: list[float]) -> None:
    picture = tree(charts.line_chart("t", [0, 1, 2], {"a": values}))
    lines = picture.findall("line[@class='grid']")
    texts = [text for text in picture.findall("text") if text.attrib["text-anchor"] == "end"][: len(lines)]
    said = [float(str(text.text).replace("\N{MINUS SIGN}", "-")) for text in texts]
    assert len(set(said)) == len(said) == len(lines) >= 3
    # Places on paper and figures in words keep the same proportions.
    heights = [float(line.attrib["y1"]) for line in lines]
    slope = (heights[-1] - heights[0]) / (said[-1] - said[0])
    for height, figure in zip(heights, said, strict=True):
        assert height == pytest.approx(heights[0] + slope * (figure - said[0]), abs=0.11)
    # No text begins left of the picture: 12 px letters are at most 7 px wide.
    assert all(float(text.attrib["x"]) - 7 * len(str(text.text)) >= 0 for text in texts)


@pytest.mark.parametrize("objective", charts.LOSS_OF_REFERENCE)
def test_the_loss_of_a_policy_that_is_its_reference_is_the_objectives_own(objective: str) -> None:
    same = torch.full((3,), 0.7, dtype=torch.float64)
    errors = PairErrors(same, same, same, same, torch.zeros_like(same))
    assert OBJECTIVES[objective](errors, 150.0).tolist() == pytest.approx(
        [charts.LOSS_OF_REFERENCE[objective]] * 3
    )


def test_every_objective_has_its_note_and_the_note_counts_what_is_added() -> None:
    # Best of N trains by sft, which needs no reference.
    assert set(charts.LOSS_OF_REFERENCE) == set(OBJECTIVES) - {"sft"}
    assert charts.loss_note({"loss": "dpop", "sft_weight": 0.2, "strategy": "online"}) == (
        "DPOP loss of the pairs plus 0.2 times the winner's denoising error; "
        "a policy equal to its reference has 0.693 plus the latter"
    )
    assert charts.loss_note({"objective": "ipo", "winner_weight": 0}) == (
        "IPO loss of the pairs; a policy equal to its reference has 0.25"
    )
    assert "0.693" not in charts.loss_note({"strategy": "best_of_n", "loss": "dpop", "sft_weight": 0.2})
    assert charts.loss_note({}) == "of the pairs"


def test_notes_say_what_the_curve_does() -> None:
    log = {
        "motion_mean": [0.2] * 6 + [0.15] * 6,
        "winner_error": [0.01] * 4 + [0.02] * 4,
        "loser_error": [0.01] * 8,
    }
    said = {one.title: one.tells for one in charts.curves(log)}
    assert said["Motion of the rollouts"].endswith(
        "Here motion mean falls from 0.2 to 0.15, by 25 % (first and last quarter)"
    )
    assert "winner error rises from 0.01 to 0.02, by 100 %" in said["Denoising error"]
    assert "should" not in said["Denoising error"] + said["Motion of the rollouts"]
    assert charts.change_in_words([1.0, math.nan, 1.0, 1.001, 1.0]) == "stays at 1"
    assert charts.change_in_words([-1.0, -1.0, 2.0, 2.0]) == "goes from \N{MINUS SIGN}1 to 2"
    assert charts.change_in_words([1.0, 2.0, 3.0]) == ""


def test_a_share_without_an_interval_is_a_point() -> None:
    share = Wins(won=17, clips=20, low=None, high=None)
    drawn = tree(marks.spans({"footage": share}, ["footage"], marks.Axis(0.5, 1.0), None))
    assert [line.attrib["x1"] for line in drawn.findall("line")] == ["70.00"]
    assert drawn.attrib["aria-label"] == "footage 0.85 (no interval)"
