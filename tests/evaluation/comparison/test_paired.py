"""Paired comparison: counts, ties, missing values, and intervals that go by prompt."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluation.comparison.paired import compare
from components.runtime.stats import Clusters, holm


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_holm_by_hand() -> None:
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"d": 0.02, "b": 0.03, "c": 0.06, "a": 0.06})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({"a": 0.9, "b": 0.8})["a"] == 1.0


def test_compare_counts_ties_and_leaves_out_missing_values() -> None:
    base = np.array([1.0, 1.0, 1.0, 1.0, np.nan])
    aligned = np.array([2.0, 1.05, 0.5, 3.0, 9.0])
    found = compare(base, aligned, Clusters(list("abcde"), 2000, rng()), tie_margin=0.1)
    assert (found.wins, found.ties, found.losses, found.pairs, found.prompts) == (2, 1, 1, 4, 4)
    assert found.rate.value == 2.5 / 4
    assert found.difference.value == pytest.approx((1 + 0.05 - 0.5 + 2) / 4)
    assert (found.base_mean, found.aligned_mean) == (1.0, pytest.approx(1.6375))


def test_compare_of_a_model_with_itself_is_all_ties_and_proves_nothing() -> None:
    values = rng(7).uniform(size=50)
    found = compare(values, values.copy(), Clusters(list(range(50)), 2000, rng()), bound=1.0)
    assert (found.wins, found.losses) == (0, 0)
    assert found.rate.value == 0.5
    assert found.difference.low < -0.03 < 0.03 < found.difference.high
    assert found.p_value == 1.0


def test_clips_of_a_prompt_that_agree_make_no_more_of_a_win() -> None:
    """12 prompts of 16 win: a win rate of .75 that may be chance, however many seeds say the same."""
    prompts = np.arange(16)
    aligned = np.where(prompts < 12, 1.0, -1.0)
    once = compare(np.zeros(16), aligned, Clusters(prompts.tolist(), 100, rng()))
    labels = np.repeat(prompts, 8)
    many = compare(np.zeros(128), np.repeat(aligned, 8), Clusters(labels.tolist(), 100, rng()))
    assert once.rate.low < 0.5
    assert many.rate.value == 0.75
    assert many.rate.low < 0.5


def test_one_prompt_shows_nothing() -> None:
    found = compare(np.zeros(5), np.full(5, -0.2), Clusters(["a"] * 5, 100, rng()), bound=1.0)
    assert not found.rate.known
    assert not found.difference.known
    assert found.difference.value == pytest.approx(-0.2)


def test_bad_comparisons_are_refused() -> None:
    clusters = Clusters(["a", "b"], 1000, rng())
    with pytest.raises(ValueError):
        compare(np.zeros(3), np.zeros(3), clusters)
    with pytest.raises(ValueError):
        compare(np.full(2, np.nan), np.zeros(2), clusters)


def test_p_values_of_nothing_are_uniform() -> None:
    below = sum(
        Clusters(list(range(24)), 1000, rng(trial)).sign_flip_p(rng(1000 + trial).normal(size=24)) < 0.05
        for trial in range(400)
    )
    assert below / 400 == pytest.approx(0.05, abs=0.03)


def test_a_ratio_leaves_out_pairs_that_one_side_lacks() -> None:
    """A clip that could not be read on one side says nothing of the ratio of the rest."""
    clusters = Clusters(["a", "b", "c"], 100, rng())
    nan = float("nan")
    found = clusters.ratio(np.array([1.0, nan, 3.0]), np.array([2.0, 50.0, 2.0]))
    assert found.value == 1.0
    assert np.isnan(clusters.ratio(np.array([nan, nan, nan]), np.ones(3)).value)
