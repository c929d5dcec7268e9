"""Adopted or not: each rule tried on both of its sides."""

from __future__ import annotations

import pytest

from components.reward.card.card import Card, Column, Wins
from components.reward.params import GateParams
from components.reward.refresh.adoption import compared, objections
from components.runtime.gate.thresholds import shipped

GATE = GateParams(srcc_world=0.8, attacks=0.9)


def card(srcc: float = 0.85, **won: int) -> Card:
    attacks = {"generated": {name: Wins(count, 10) for name, count in won.items()}}
    return Card(columns={"world": Column(clips=100, srcc=srcc)}, attacks=attacks if won else {})


@pytest.mark.parametrize(
    ("before", "after", "adopted"),
    [
        (0.90, 0.81, True),  # lost much, but the gate is content
        (0.79, 0.775, True),  # below the gate, not far below what was
        (0.79, 0.765, False),
        (0.85, 0.79, False),
    ],
)
def test_the_gate_or_what_was_there_before(before: float, after: float, adopted: bool) -> None:
    found = compared(card(before), card(after), GATE)
    assert (objections(found) == []) == adopted
    if not adopted:
        assert objections(found) == [f"srcc_world is {after:.3f}, was {before:.3f}"]
    assert found[0].as_json() == {"before": before, "after": after, "least": 0.8}


def test_an_attack_may_lose_one_clip_and_all_together_no_more_than_the_margin() -> None:
    before = card(frozen=9, blank=10, erased=10, ghosted=10, looped=10, blurred=10)
    one = card(frozen=8, blank=10, erased=10, ghosted=10, looped=10, blurred=10)
    assert objections(compared(before, one, GATE)) == []
    two = card(frozen=7, blank=10, erased=10, ghosted=10, looped=10, blurred=10)
    reasons = objections(compared(before, two, GATE))
    assert [line.split(" is ")[0] for line in reasons] == [
        "frozen_below_original_generated",
        "attacks_below_original",
    ]
    # One of each is within the gate's own figure, but together they are 6 of 60.
    each = card(frozen=9, blank=9, erased=9, ghosted=9, looped=9, blurred=9)
    reasons = objections(compared(before, each, GATE))
    assert [line.split(" is ")[0] for line in reasons] == ["attacks_below_original"]


def test_the_policys_own_samples_count() -> None:
    assert objections(compared(card(), card(), GATE, (0.90, 0.90 - shipped().refresh.margin))) == []
    reasons = objections(compared(card(), card(), GATE, (0.90, 0.87)))
    assert reasons == ["policy_pairs_ordered is 0.870, was 0.900"]
    assert objections(compared(card(), card(), GATE, (None, 0.1))) == []


def test_a_version_of_which_nothing_is_known_is_not_adopted() -> None:
    assert objections(compared(Card(), Card(), GATE)) == ["nothing could be compared"]
    # A figure that only one side has says nothing.
    assert objections(compared(Card(), card(0.1), GATE)) == ["nothing could be compared"]
