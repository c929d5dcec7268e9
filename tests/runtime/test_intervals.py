"""Intervals against scipy's, and the equation that Wilson's ends solve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from components.runtime.intervals import bootstrap_mean, wilson


def test_wilson_against_the_quadratic_it_solves() -> None:
    """The ends are the p for which |p_hat - p| = z sqrt(p(1-p)/n)."""
    found = wilson(69, 96)
    z = 1.959963984540054
    for end in (found.low, found.high):
        assert abs(69 / 96 - end) == pytest.approx(z * math.sqrt(end * (1 - end) / 96), rel=1e-9)
    assert found.low < found.value == 69 / 96 < found.high


@pytest.mark.parametrize(("won", "count"), [(60, 60), (57, 60), (0, 7), (3, 10)])
def test_wilson_is_scipys(won: int, count: int) -> None:
    expected = stats.binomtest(won, count).proportion_ci(0.95, method="wilson")
    found = wilson(won, count)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_takes_half_wins_and_refuses_what_cannot_be() -> None:
    assert wilson(2.5, 5).value == 0.5
    for successes, trials in ((3, 0), (-1, 4), (5, 4)):
        with pytest.raises(ValueError, match=f"{successes} successes in {trials} trials"):
            wilson(successes, trials)


def test_bootstrap_interval_is_scipys_up_to_the_draws() -> None:
    values = np.random.default_rng(1).exponential(0.5, 60)
    found = bootstrap_mean(values.tolist(), np.random.default_rng(0))
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)
    assert found == bootstrap_mean(values.tolist(), np.random.default_rng(0))


def test_bootstrap_refuses_what_has_no_mean() -> None:
    for values in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="finite values"):
            bootstrap_mean(values, np.random.default_rng(0))
