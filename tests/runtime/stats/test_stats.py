"""Estimates and intervals against scipy, and against formulas worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from components.runtime.stats import (
    FEWEST,
    Clusters,
    clopper_pearson,
    clustered_mean,
    holm,
    mean_over_clusters,
    plain,
    wilson,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_wilson_against_the_quadratic_it_solves() -> None:
    z = stats.norm.ppf(0.975)
    found = wilson(69, 96)
    for end in (found.low, found.high):
        assert (end - 69 / 96) ** 2 == pytest.approx(z * z * end * (1 - end) / 96)
    assert found.low < 69 / 96 < found.high


@pytest.mark.parametrize(("won", "count"), [(0, 10), (10, 10), (3, 10), (150, 192), (1, 2)])
def test_independent_proportions_are_scipys(won: int, count: int) -> None:
    for ours, theirs in ((wilson, "wilson"), (clopper_pearson, "exact")):
        expected = stats.binomtest(won, count).proportion_ci(0.95, method=theirs)
        found = ours(won, count)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_proportions_take_half_wins_and_refuse_what_cannot_be(interval: object) -> None:
    assert callable(interval)
    assert interval(2.5, 5).value == 0.5
    for successes, trials in ((0, 0), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="successes"):
            interval(successes, trials)


def test_the_mean_of_values_without_skewness_has_students_interval() -> None:
    half = rng(1).normal(size=20)
    values = np.concatenate([half, -half]) + 0.3
    found = clustered_mean(values, range(40))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_skewed_mean_has_the_wider_of_student_and_hall() -> None:
    """Hall (1992): g(t) = t + a t^2 / 3 + a^2 t^3 / 27 + a / 6, solved here for g(t) = quantile."""
    values = rng(2).exponential(size=12)
    found = clustered_mean(values, range(12))
    error, quantile = stats.sem(values), stats.t.ppf(0.975, 11)
    skewness = 12 / (11 * 10) * (((values - values.mean()) / values.std(ddof=1)) ** 3).sum()
    a = skewness / math.sqrt(12)

    def transformed(t: float, goal: float) -> float:
        return t + a * t * t / 3 + a * a * t**3 / 27 + a / 6 - goal

    up = optimize.brentq(transformed, -50, 50, args=(quantile,))
    down = optimize.brentq(transformed, -50, 50, args=(-quantile,))
    assert found.low == pytest.approx(values.mean() - max(quantile, up) * error)
    assert found.high == pytest.approx(values.mean() + max(quantile, -down) * error)
    assert found.high - found.value > found.value - found.low


def test_seeds_of_a_prompt_are_not_observations_of_their_own() -> None:
    values = rng(3).normal(size=30)
    once = clustered_mean(values, range(30))
    thrice = clustered_mean(np.repeat(values, 3), np.repeat(np.arange(30), 3).tolist())
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high))
    alone = clustered_mean(np.repeat(values, 3), range(90))
    assert alone.high - alone.low < 0.65 * (once.high - once.low)
    wins = np.repeat(values > 0, 3).astype(float)
    assert Clusters(np.repeat(np.arange(30), 3).tolist()).rate(wins).low < Clusters(range(90)).rate(wins).low  # type: ignore[arg-type]


def test_clusters_of_unequal_size_are_weighed_by_size() -> None:
    """The linearised ratio sum(y) / sum(n): influence (s_g - m n_g) G / N, worked through by numpy alone."""
    sizes = rng(4).integers(1, 6, 40)
    labels = np.repeat(np.arange(40), sizes)
    values = rng(5).normal(size=len(labels)) + labels % 2
    found = clustered_mean(values, labels.tolist())
    assert found.value == pytest.approx(values.mean())
    influence = [values[labels == g].sum() - values.mean() * sizes[g] for g in range(40)]
    half = stats.t.ppf(0.975, 39) * np.std(influence, ddof=1) * 40 / len(values) / math.sqrt(40)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


@pytest.mark.parametrize("number", [1, 2, FEWEST - 1])
def test_nothing_is_shown_by_few_clusters(number: int) -> None:
    clusters = Clusters([i % number for i in range(60)])
    values = rng(6).uniform(size=60)
    for found in (clusters.mean(values, 1.0), clusters.rate(values), clusters.ratio(values, values + 1)):
        assert math.isfinite(found.value)
        assert (found.low, found.high) == (-math.inf, math.inf)
        assert not found.known
        assert found.ends == (None, None)


@pytest.mark.parametrize(("number", "each"), [(10, 1), (96, 2), (20, 5)])
def test_pairs_that_never_differed_may_yet(number: int, each: int) -> None:
    """With no discordant cluster of n, up to 1 - .025^(1/n) of them may be (Clopper & Pearson, by hand)."""
    clusters = Clusters(np.repeat(np.arange(number), each).tolist())
    found = clusters.mean(np.zeros(number * each), bound=1.0)
    reach = 1 - 0.025 ** (1 / number)
    assert (found.value, found.low, found.high) == pytest.approx((0, -reach, reach))
    assert not clusters.mean(np.zeros(number * each)).known  # what has no scale has no bound either
    wins = clusters.rate(np.ones(number * each))
    assert (wins.low, wins.high) == pytest.approx((1 - reach, 1))


def test_a_rate_counts_the_trials_that_the_clusters_are_worth() -> None:
    """Of 40 prompts x 5 that agree within the prompt: the interval of 40 trials, shrunk by (z / t)^2."""
    won = np.arange(40) % 4 > 0
    found = Clusters(np.repeat(np.arange(40), 5).tolist()).rate(np.repeat(won, 5).astype(float))
    trials = 39 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 39)) ** 2
    low = stats.beta.ppf(0.025, 0.75 * trials, 0.25 * trials + 1)
    assert found.low == pytest.approx(low)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        Clusters(range(12)).rate(np.full(12, 1.5))  # type: ignore[arg-type]


def test_fiellers_interval_is_where_the_difference_is_not_significant() -> None:
    """Fieller (1954): r is inside where |mean(a - r b)| / se < t; the ends are solved for by bisection."""
    below = rng(7).lognormal(size=30)
    above = below * rng(8).lognormal(0, 0.3, size=30)
    found = Clusters(range(30)).ratio(above, below)  # type: ignore[arg-type]

    def beyond(r: float) -> float:
        return abs(stats.ttest_1samp(above - r * below, 0).statistic) - stats.t.ppf(0.975, 29)

    assert found.value == pytest.approx(above.mean() / below.mean())
    assert found.low == pytest.approx(optimize.brentq(beyond, found.value - 1, found.value))
    assert found.high == pytest.approx(optimize.brentq(beyond, found.value, found.value + 1))


def test_a_ratio_to_what_may_be_nothing_has_no_interval() -> None:
    clusters = Clusters(range(20))  # type: ignore[arg-type]
    below = np.append(np.full(19, -0.04), 1.0)
    assert not clusters.ratio(np.ones(20), below).known
    assert math.isnan(clusters.ratio(np.ones(20), -np.ones(20)).value)
    assert not clusters.ratio(np.ones(20), np.full(20, 2.0)).known  # the same in every cluster


def test_values_that_are_not_finite_are_left_out() -> None:
    values = rng(9).uniform(size=24)
    labels = [i // 2 for i in range(24)]
    holes = np.append(values, [math.nan, math.inf])
    assert clustered_mean(holes, [*labels, 0, 99]) == clustered_mean(values, labels)
    assert math.isnan(clustered_mean([math.nan], ["a"]).value)
    with pytest.raises(ValueError, match="at least one pair"):
        Clusters([])


def test_the_mean_over_clusters_says_of_how_many() -> None:
    found = mean_over_clusters([0.5, math.nan, *rng(10).uniform(size=11)])
    assert found.clusters == 12
    assert found.known
    assert mean_over_clusters([math.nan]).clusters == 0
    assert not mean_over_clusters([0.1, 0.2, 0.3]).known


def test_sign_flips_are_the_exact_test() -> None:
    """Six prompts: all 64 sign patterns can be listed."""
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.4, -0.2])
    sums = np.array([np.dot(signs, values) for signs in itertools.product((-1, 1), repeat=6)])
    exact = float(np.mean(np.abs(sums) >= abs(values.sum()) - 1e-12))
    found = Clusters(list(range(6)), 40_000, rng(5)).sign_flip_p(values)
    assert found == pytest.approx(exact, abs=0.01)
    with pytest.raises(ValueError, match="random numbers"):
        Clusters([1, 2]).sign_flip_p(np.zeros(2))


@given(st.dictionaries(st.text(max_size=2), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_monotone_and_never_below_the_raw_value(raw: dict[str, float]) -> None:
    found = holm(raw)
    ordered = sorted(raw, key=lambda name: raw[name])
    assert all(raw[name] <= found[name] <= 1 for name in raw)
    assert [found[name] for name in ordered] == sorted(found.values())
    assert found[ordered[0]] == min(1.0, len(raw) * raw[ordered[0]])


def test_json_has_no_infinities() -> None:
    assert plain({"a": [1.0, -math.inf], "b": (math.nan, "x", 2)}) == {"a": [1.0, None], "b": [None, "x", 2]}
