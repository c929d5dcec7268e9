"""Which candidates become a pair: against brute force.

Each reason is tried against a group that must end for it.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.alignment.candidates.pairs import (
    Candidate,
    count_reasons,
    motion_of,
    noise_of,
    pair_group,
    pair_groups,
)


def group(
    *rewards: float,
    motion: float | list[float] = 1.0,
    spread: float | list[float] = 0.0,
    prompt: str = "p",
) -> list[Candidate]:
    motions = motion if isinstance(motion, list) else [motion] * len(rewards)
    spreads = spread if isinstance(spread, list) else [spread] * len(rewards)
    rows = zip(rewards, motions, spreads, strict=True)
    return [Candidate(prompt, i, 100 + i, r, m, s) for i, (r, m, s) in enumerate(rows)]


def test_best_against_worst() -> None:
    verdict = pair_group(group(0.2, 0.9, 0.1, 0.5), 0.0, 0.0)
    assert (verdict.winner, verdict.loser, verdict.reason) == (1, 2, "accepted")
    assert verdict.gap == pytest.approx(0.8)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.randoms())
def test_the_gap_is_the_largest_and_order_does_not_matter(rewards: list[float], random: object) -> None:
    candidates = group(*rewards)
    verdict = pair_group(candidates, 0.0, 0.0)
    largest = max(a - b for a in rewards for b in rewards)
    assert verdict.gap == pytest.approx(largest)
    assert verdict.accepted == (largest > 0)
    random.shuffle(candidates)  # type: ignore[attr-defined]
    assert pair_group(candidates, 0.0, 0.0) == verdict


def test_ties_are_no_preference() -> None:
    assert pair_group(group(0.4, 0.4, 0.4), 0.0, 0.0).reason == "gap_too_small"


def test_nan_and_infinity_are_left_out() -> None:
    verdict = pair_group(group(math.nan, 0.3, math.inf, 0.1), 0.0, 0.0)
    assert (verdict.winner, verdict.loser) == (1, 3)
    assert pair_group(group(math.nan, 0.3), 0.0, 0.0).reason == "too_few_finite"


def test_a_still_winner_is_passed_over_for_the_next() -> None:
    still = pair_group(group(0.9, 0.6, 0.1, motion=[0.1, 0.9, 1.0]), 0.0, 0.6)
    assert (still.winner, still.loser) == (1, 2)
    assert still.gap == pytest.approx(0.5)
    assert pair_group(group(0.9, 0.6, 0.1, motion=[0.1, 0.2, 1.0]), 0.0, 0.6).reason == "winner_too_still"


def test_the_smallest_gap_is_measured_in_the_spread_inside_groups() -> None:
    # Group means differ by 100, which must not count. Inside: deviations (-1, 1), (-3, 3), sum of squares 20,
    # 2 degrees of freedom: spread sqrt(10) = 3.162. With min_gap 1 a gap of 2 is too small and one of 6
    # is not.
    verdicts = pair_groups([group(1.0, 3.0, prompt="a"), group(98.0, 104.0, prompt="b")], 1.0, 0.0)
    assert [v.reason for v in verdicts] == ["gap_too_small", "accepted"]
    assert count_reasons(verdicts) == {
        "accepted": 1, "too_few_finite": 0, "gap_too_small": 1, "within_noise": 0, "winner_too_still": 0,
    }  # fmt: skip


def test_a_lead_inside_the_noise_is_no_preference() -> None:
    # Spreads 3 and 4 make a noise of 5.
    assert pair_group(group(5.0, 0.0, spread=[3.0, 4.0]), 0.0, 0.0, 1.0).reason == "within_noise"
    assert pair_group(group(5.1, 0.0, spread=[3.0, 4.0]), 0.0, 0.0, 1.0).accepted
    assert pair_group(group(5.1, 0.0, spread=[3.0, 4.0]), 0.0, 0.0, 2.0).reason == "within_noise"
    assert pair_group(group(5.0, 0.0, spread=[3.0, 4.0]), 0.0, 0.0).accepted


def test_a_doubtful_winner_is_passed_over_for_a_sure_one() -> None:
    verdict = pair_group(group(9.0, 8.0, 0.0, spread=[50.0, 1.0, 1.0]), 0.0, 0.0, 1.0)
    assert (verdict.winner, verdict.loser, verdict.gap) == (1, 2, pytest.approx(8.0))


def test_where_nobody_wins_the_reason_is_what_befell_the_best() -> None:
    still_then_doubtful = group(9.0, 8.0, 0.0, motion=[0.1, 1.0, 1.0], spread=[1.0, 50.0, 1.0])
    assert pair_group(still_then_doubtful, 0.0, 0.6, 1.0).reason == "winner_too_still"
    doubtful_then_still = group(9.0, 8.0, 0.0, motion=[1.0, 0.1, 1.0], spread=[50.0, 1.0, 1.0])
    assert pair_group(doubtful_then_still, 0.0, 0.6, 1.0).reason == "within_noise"


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 2), st.floats(0, 1)), min_size=2, max_size=6),
    st.floats(0, 3),
)
def test_every_accepted_pair_keeps_all_rules_and_no_better_one_was_missed(
    rows: list[tuple[float, float, float]], factor: float
) -> None:
    rewards, spreads, motions = (list(column) for column in zip(*rows, strict=True))
    verdict = pair_group(group(*rewards, motion=motions, spread=spreads), 0.1, 0.6, factor)
    loser = max(range(len(rows)), key=lambda i: (-rewards[i], i))

    def allowed(i: int) -> bool:
        gap = rewards[i] - rewards[loser]
        noise = factor * math.sqrt(spreads[i] ** 2 + spreads[loser] ** 2)
        return gap > 0.1 and gap > noise and motions[i] >= 0.6 * motions[loser]

    assert verdict.accepted == any(allowed(i) for i in range(len(rows)))
    if verdict.winner is not None:
        assert verdict.loser == loser and allowed(verdict.winner)
        assert all(rewards[i] <= rewards[verdict.winner] for i in range(len(rows)) if allowed(i))


def test_a_reward_that_cannot_tell_its_doubt_keeps_its_pairs() -> None:
    verdict = pair_group(group(1.0, 0.0, spread=[math.nan, math.inf]), 0.0, 0.0, 3.0)
    assert verdict.accepted
    assert noise_of(*group(1.0, 0.0, spread=[math.nan, 2.0])) == 2.0


def test_motion_sees_movement_and_not_a_change_of_light() -> None:
    torch.manual_seed(0)
    picture = torch.randint(40, 200, (3, 16, 16))
    still = picture.expand(5, -1, -1, -1)
    gain = torch.tensor([1.0, 0.6, 0.9, 0.5, 0.8]).view(5, 1, 1, 1)
    flickering = (still * gain).round()
    moving = torch.stack([picture.roll(t, dims=2) for t in range(5)])
    values = motion_of(torch.stack([still.float(), flickering, moving.float()]).to(torch.uint8))
    assert values[0] == 0
    assert values[1] < 0.05 * values[2]
