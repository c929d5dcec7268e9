"""The gate: each threshold alone refuses, what could not be measured does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from components.reward.card.card import Agreement, Card, Column, Slowed, Stillness, Wins
from components.reward.card.gate import checks, least_room, line, refusals
from components.reward.params import GateParams
from components.runtime.gate.rules import Check, Rule, apply
from components.runtime.gate.thresholds import shipped
from components.runtime.stats import Interval, mean_over_clusters, without_interval

GOOD = Column(clips=100, srcc=0.9, reference_above=0.97, adjacent_ordered=0.9, two_apart_ordered=0.97)
WINS = {"frozen": 100, "blurred": 95, "blank": 100, "erased": 92}


def wins(**won: int) -> dict[str, Wins]:
    """Of 100 pairs each."""
    return {name: Wins.counted(count, 100) for name, count in won.items()}


def card() -> Card:
    return Card(
        columns={name: GOOD for name in ("world", "footage", "all", "heldout_types", "generated")},
        attacks={"world": wins(**WINS), "generated": wins(**WINS, few_steps=96)},
        stillness=Stillness(slowed={"pan": Slowed(Wins.counted(60, 100), -0.2)}),
        judge=Agreement(0.3, 0.1, 0.5, 20),
    )


def test_a_good_card_passes() -> None:
    assert refusals(checks(card(), GateParams())) == []


@pytest.mark.parametrize(
    ("column", "field", "value", "named"),
    [
        ("world", "srcc", 0.84, "srcc_world"),
        ("all", "srcc", 0.6, "srcc_all"),
        ("heldout_types", "srcc", 0.5, "srcc_heldout_types"),
        ("footage", "srcc", 0.4, "srcc_footage"),
        ("all", "reference_above", 0.9, "reference_above_all"),
        ("all", "adjacent_ordered", 0.7, "adjacent_ordered_all"),
        ("all", "two_apart_ordered", 0.8, "two_apart_ordered_all"),
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
    bad.attacks["generated"][attack] = Wins.counted(50, 100)
    # Once by itself, and once with all sources together.
    pooled = (WINS[attack] + 50) / 200
    assert refusals(checks(bad, GateParams())) == [
        f"{attack}_below_original is {pooled:.3f}, must be at least 0.9",
        f"{attack}_below_original_generated is 0.500, must be at least 0.9",
    ]


def test_footage_counts_through_all_sources_together() -> None:
    weak = card()
    weak.attacks = {"world": wins(erased=100), "footage": wins(erased=80), "generated": wins(erased=99)}
    assert refusals(checks(weak, GateParams())) == []
    weak.attacks["footage"]["erased"] = Wins.counted(60, 100)
    assert refusals(checks(weak, GateParams())) == ["erased_below_original is 0.863, must be at least 0.9"]


def test_pairs_count_alike_whatever_their_source() -> None:
    weak = card()
    weak.attacks = {"world": {"erased": Wins.counted(300, 300)}, "footage": {"erased": Wins.counted(0, 20)}}
    assert refusals(checks(weak, GateParams())) == []


def test_an_attack_of_the_generator_alone_is_asked_for_once() -> None:
    bad = card()
    bad.attacks["generated"]["few_steps"] = Wins.counted(20, 32)
    assert refusals(checks(bad, GateParams())) == [
        "few_steps_below_original_generated is 0.625, must be at least 0.9"
    ]


def test_a_score_that_rewards_stillness_refuses() -> None:
    bad = card()
    bad.stillness = Stillness(slowed={"a": Slowed(Wins(1, 2), -1.0), "b": Slowed(Wins(1, 2), 0.75)})
    found = checks(bad, GateParams())
    assert refusals(found) == ["stillness_gain is 0.750, must be at most 0.4"]
    assert "stillness_gain 0.750 <= 0.4" in [line(check) for check in found]


def test_a_judge_no_better_than_chance_refuses() -> None:
    bad = card()
    bad.judge = Agreement(0.1, 0.0, 0.2, 20)
    assert refusals(checks(bad, GateParams())) == ["judge_srcc_low is 0.000, must be above 0"]


def test_a_judge_of_few_prompts_shows_nothing() -> None:
    few = card()
    found = mean_over_clusters([0.8, 0.7, 0.9, 0.6, 0.8, 0.7, 0.9, 0.6, 0.75], bound=1.0)
    few.judge = Agreement(found.value, *found.ends, found.clusters)
    assert "judge_srcc_low: unavailable" in [line(check) for check in checks(few, GateParams())]


def test_an_attacks_interval_goes_by_content() -> None:
    """72 of 90 clips won, but of 15 contents x 6 that agree: worth 15 trials, not 90."""
    won = np.repeat(np.arange(15) < 12, 6)
    contents = [f"c{number // 6}" for number in range(90)]
    seen = np.ones(90, bool)
    by_content, alone = Wins.of(won, seen, contents), Wins.of(won, seen)
    assert by_content == alone  # the counts are the same
    assert alone.high is not None and by_content.high is not None
    assert alone.high < 0.9 < by_content.high
    trials = 14 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 14)) ** 2
    assert by_content.high == pytest.approx(stats.beta.ppf(0.975, 0.8 * trials + 1, 0.2 * trials))
    distinct = Wins.of(won, seen, [f"c{number}" for number in range(90)])
    assert (distinct.low, distinct.high) == (alone.low, alone.high)
    few = Wins.of(won, seen, ["one"] * 90)
    assert few.low is few.high is None and few.contents == 1


ROOM = 0.015
"""Three times what the same seed's figures differ by from one machine to another."""


def test_the_default_run_does_not_pass_by_a_hair(repository: Path) -> None:
    """In the recorded run: no bound lies closer than three machines' differences."""
    figures = json.loads((repository / "results" / "reward.json").read_text())
    assert figures["gate_room"] >= ROOM


def checked(figure: Interval | None, **rule: Any) -> Check:
    return apply(Rule(metric="x", when_absent="skip", **rule), figure, "reward", "x")


def test_the_room_is_what_lies_between_the_figure_that_counts_and_its_bound() -> None:
    low = checked(without_interval(0.93), at_least=0.92)
    high = checked(without_interval(0.1), at_most=0.4)
    by_interval = checked(Interval(0.85, 0.8, 0.95), at_least=0.9, unless_refuted=True)
    confident = checked(Interval(0.85, 0.8, 0.95), at_least=0.7, confident=True)
    outside = checked(without_interval(0.5), at_least=0.6)
    absent = checked(None, at_least=1.0)
    rooms = [one.room for one in (low, high, by_interval, confident, outside)]
    assert rooms == pytest.approx([0.01, 0.3, 0.05, 0.1, -0.1])
    assert least_room([low, high, by_interval, absent]) == pytest.approx(0.01)
    assert least_room([outside, low]) == pytest.approx(-0.1)
    assert least_room([absent]) is None
    for check in (low, high, by_interval, confident, outside):
        assert (check.room is not None and check.room >= 0) == check.passed


def test_a_param_overrides_the_bound_of_the_gate_file() -> None:
    bounds = {rule.metric: rule.bounds for rule in GateParams(srcc_world=0.5, judge_low=-0.1).rules()}
    shipped_bounds = {rule.metric: rule.bounds for rule in shipped().reward}
    assert bounds == shipped_bounds | {"srcc_world": ">= 0.5", "judge_srcc_low": "> -0.1"}
    assert GateParams().rules() == list(shipped().reward)  # also: one bound where a param sets two


def test_without_a_world_the_rest_still_decides() -> None:
    footage = card()
    del footage.columns["world"], footage.attacks["world"]
    footage.judge = footage.stillness = None
    found = checks(footage, GateParams())
    assert refusals(found) == []
    assert {line(check) for check in found if check.passed is None} == {
        "srcc_world: unavailable",
        "stillness_gain: unavailable",
        "judge_srcc_low: unavailable",
    }
    footage.columns["all"] = replace(GOOD, srcc=0.1)
    assert len(refusals(checks(footage, GateParams()))) == 1


def test_an_empty_card_is_refused() -> None:
    assert refusals(checks(Card(), GateParams())) == ["nothing could be measured"]


def test_few_generated_clips_refuse_only_where_their_interval_says_so() -> None:
    """52 of 60 are .867 [.76, .93]; 46 of 60 are .767 [.65, .86] (Wilson, by hand)."""
    some = card()
    some.attacks["generated"]["erased"] = Wins.counted(52, 60)
    assert refusals(checks(some, GateParams())) == []
    some.attacks["generated"]["erased"] = Wins.counted(46, 60)
    assert "erased_below_original_generated is 0.767, must be at least 0.9" in refusals(
        checks(some, GateParams())
    )
