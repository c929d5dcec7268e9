"""Statistics against formulas worked by hand, exhaustive enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from components.evaluation.comparison import Clusters, compare, holm


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_bootstrap_matches_every_possible_resample() -> None:
    """Three prompts: all 27 resamples can be listed; the percentiles must be those of the full list."""
    values = np.array([0.0, 1.0, 5.0])
    full = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    found = Clusters(["a", "b", "c"], 40_000, rng(), 0.8).mean(values)
    assert found.value == 2.0
    assert found.low == pytest.approx(np.quantile(full, 0.1), abs=1e-9)
    assert found.high == pytest.approx(np.quantile(full, 0.9), abs=1e-9)


def test_bootstrap_width_is_that_of_the_normal_theory() -> None:
    values = rng(1).normal(0.3, 1.0, size=400)
    found = Clusters(list(range(400)), 10_000, rng(2)).mean(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


def test_duplicated_pairs_of_a_prompt_do_not_narrow_the_interval() -> None:
    values = rng(3).normal(size=30)
    once = Clusters(list(range(30)), 20_000, rng(4)).mean(values)
    thrice = Clusters([i for i in range(30) for _ in range(3)], 20_000, rng(4)).mean(np.repeat(values, 3))
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    alone = Clusters(list(range(90)), 20_000, rng(4)).mean(np.repeat(values, 3))
    assert alone.high - alone.low < 0.7 * (once.high - once.low)


def test_sign_flip_matches_enumeration() -> None:
    values = np.array([0.4, 1.1, 0.2, -0.3, 0.9, 0.5])
    flips = [abs(np.dot(s, values)) for s in itertools.product([-1, 1], repeat=6)]
    exact = np.mean(np.array(flips) >= abs(values.sum()) - 1e-12)
    found = Clusters(list(range(6)), 40_000, rng(5)).sign_flip_p(values)
    assert found == pytest.approx(exact, abs=0.005)


def test_no_difference_is_rarely_called_one() -> None:
    called = 0
    for trial in range(200):
        called += (
            Clusters(list(range(24)), 1000, rng(trial)).sign_flip_p(rng(1000 + trial).normal(size=24)) < 0.05
        )
    assert called / 200 < 0.10


def test_holm_by_hand() -> None:
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"d": 0.02, "b": 0.03, "c": 0.06, "a": 0.06})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({"a": 0.9, "b": 0.8})["a"] == 1.0


def test_compare_counts_ties_and_leaves_out_missing_values() -> None:
    base = np.array([1.0, 1.0, 1.0, 1.0, np.nan])
    aligned = np.array([2.0, 1.05, 0.5, 3.0, 9.0])
    found = compare(base, aligned, Clusters(list("abcde"), 2000, rng()), tie_margin=0.1)
    assert (found.wins, found.ties, found.losses, found.pairs) == (2, 1, 1, 4)
    assert found.rate.value == 2.5 / 4
    assert found.difference.value == pytest.approx((1 + 0.05 - 0.5 + 2) / 4)
    assert found.clustered_rate.value == pytest.approx(found.rate.value)
    assert (found.base_mean, found.aligned_mean) == (1.0, pytest.approx(1.6375))


def test_compare_of_a_model_with_itself_is_all_ties() -> None:
    values = rng(7).normal(size=50)
    found = compare(values, values.copy(), Clusters(list(range(50)), 2000, rng()))
    assert (found.wins, found.losses) == (0, 0)
    assert found.rate.value == 0.5
    assert found.difference.low == found.difference.high == 0.0
    assert found.p_value == 1.0


def test_ratio_of_means() -> None:
    base, aligned = np.array([1.0, 3.0, 2.0, 4.0]), np.array([2.0, 6.0, 4.0, 8.0])
    found = Clusters([0, 1, 2, 3], 2000, rng()).ratio(aligned, base)
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_bad_comparisons_are_refused() -> None:
    clusters = Clusters(["a", "b"], 1000, rng())
    with pytest.raises(ValueError):
        compare(np.zeros(3), np.zeros(3), clusters)
    with pytest.raises(ValueError):
        compare(np.full(2, np.nan), np.zeros(2), clusters)
    with pytest.raises(ValueError):
        Clusters([], 1000, rng())


def test_the_same_seed_gives_the_same_interval() -> None:
    values = rng(8).normal(size=20)
    first, second = (Clusters(list(range(20)), 2000, rng(9)).mean(values) for _ in range(2))
    assert first == second


def test_a_ratio_leaves_out_pairs_that_one_side_lacks() -> None:
    """A clip that could not be read on one side says nothing of the ratio of the rest."""
    clusters = Clusters(["a", "b", "c"], 100, rng())
    nan = float("nan")
    found = clusters.ratio(np.array([1.0, nan, 3.0]), np.array([2.0, 50.0, 2.0]))
    assert found.value == 1.0
    assert math.isnan(clusters.ratio(np.array([nan, nan, nan]), np.ones(3)).value)
