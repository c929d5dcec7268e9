"""The gate: each threshold alone refuses, what could not be measured does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.reward.card import Card, Column
from components.reward.correlation import Interval
from components.reward.gate import checks, refusals
from components.reward.params import GateParams

GOOD = Column(100, 0.9, 0.7, 0.9, 0.1, 0.9, 0.97, 0.9, 0.7)
WINS = {"frozen": 1.0, "blurred": 0.95, "blank": 1.0, "erased": 0.92}


def card() -> Card:
    return Card(
        columns={name: GOOD for name in ("world", "footage", "all", "heldout_types", "generated")},
        attacks={"world": dict(WINS), "generated": dict(WINS)},
        judge=Interval(0.3, 0.1, 0.5, 20),
    )


def test_a_good_card_passes() -> None:
    assert refusals(checks(card(), GateParams())) == []


@pytest.mark.parametrize(
    ("column", "field", "value", "named"),
    [
        ("world", "srcc", 0.84, "srcc_world"),
        ("all", "srcc", 0.6, "srcc_all"),
        ("heldout_types", "srcc", 0.5, "srcc_heldout_types"),
        ("all", "reference_above", 0.9, "reference_above_all"),
        ("generated", "reference_above", 0.9, "reference_above_generated"),
    ],
)
def test_each_column_can_refuse(column: str, field: str, value: float, named: str) -> None:
    bad = card()
    bad.columns[column] = replace(GOOD, **{field: value})
    assert [line.split()[0] for line in refusals(checks(bad, GateParams()))] == [named]


@pytest.mark.parametrize("attack", sorted(WINS))
def test_each_attack_can_refuse(attack: str) -> None:
    bad = card()
    bad.attacks["generated"][attack] = 0.5
    # Once by itself, and once as the mean over both sources.
    pooled = (WINS[attack] + 0.5) / 2
    assert refusals(checks(bad, GateParams())) == [
        f"{attack}_below_original is {pooled:.3f}, must be at least 0.9",
        f"{attack}_below_original_generated is 0.500, must be at least 0.9",
    ]


def test_footage_counts_through_the_mean_over_sources() -> None:
    weak = card()
    weak.attacks = {"world": {"erased": 1.0}, "footage": {"erased": 0.8}, "generated": {"erased": 0.99}}
    assert refusals(checks(weak, GateParams())) == []
    weak.attacks["footage"]["erased"] = 0.6
    assert refusals(checks(weak, GateParams())) == ["erased_below_original is 0.863, must be at least 0.9"]


def test_a_judge_no_better_than_chance_refuses() -> None:
    bad = card()
    bad.judge = Interval(0.1, 0.0, 0.2, 20)
    assert refusals(checks(bad, GateParams())) == ["judge_srcc_low is 0.000, must be above 0"]


def test_without_a_world_the_rest_still_decides() -> None:
    footage = card()
    del footage.columns["world"], footage.attacks["world"]
    footage.judge = None
    found = checks(footage, GateParams())
    assert refusals(found) == []
    assert {check.line() for check in found if check.passed is None} == {
        "srcc_world: unavailable",
        "judge_srcc_low: unavailable",
    }
    footage.columns["all"] = replace(GOOD, srcc=0.1)
    assert len(refusals(checks(footage, GateParams()))) == 1


def test_an_empty_card_is_refused() -> None:
    assert refusals(checks(Card(), GateParams())) == ["nothing could be measured"]
