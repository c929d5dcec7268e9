"""Correlations against scipy and closed forms, the logistic against a known curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from components.reward.card.correlation import (
    fit_logistic,
    krcc,
    logistic,
    plcc_rmse,
    srcc,
)


@given(st.lists(st.integers(0, 6), min_size=3, max_size=25), st.integers(0, 99))
def test_rank_correlations_are_scipys_with_ties(values: list[int], seed: int) -> None:
    truth = np.asarray(values, float)
    scores = np.random.default_rng(seed).integers(0, 5, len(values)).astype(float)
    if np.ptp(truth) == 0 or np.ptp(scores) == 0:
        assert math.isnan(srcc(scores, truth)) and math.isnan(krcc(scores, truth))
        return
    ranks = np.corrcoef(stats.rankdata(scores), stats.rankdata(truth))[0, 1]
    assert srcc(scores, truth) == pytest.approx(ranks, abs=1e-9)
    assert krcc(scores, truth) == pytest.approx(stats.kendalltau(scores, truth).statistic, abs=1e-12)


def test_monotone_but_curved_scores_are_linear_after_the_logistic() -> None:
    scores = np.linspace(-6, 6, 200)
    truth = logistic(scores, 0.9, 0.1, 0.5, 1.3)
    plcc, rmse = plcc_rmse(scores, truth)
    assert plcc == pytest.approx(1.0, abs=1e-6) and rmse < 1e-4
    assert np.corrcoef(scores, truth)[0, 1] < 0.99


def test_the_logistic_is_the_published_formula() -> None:
    assert logistic(np.array([2.0]), 5.0, 1.0, 2.0, -3.0)[0] == pytest.approx(3.0)
    assert logistic(np.array([5.0]), 5.0, 1.0, 2.0, -3.0)[0] == pytest.approx(1 + 4 / (1 + math.exp(-1)))


def test_too_little_to_fit_is_nan() -> None:
    assert all(math.isnan(value) for value in plcc_rmse(np.ones(10), np.arange(10.0)))


def test_the_fitted_curve_is_the_one_the_points_lie_on() -> None:
    scores = np.linspace(-6, 6, 60)
    fit = fit_logistic(scores, logistic(scores, 0.9, 0.1, 0.5, 1.3))
    assert fit is not None and fit.logistic is not None
    assert fit.logistic[:3] == pytest.approx((0.9, 0.1, 0.5), abs=1e-3)
    assert abs(fit.logistic[3]) == pytest.approx(1.3, abs=1e-3)
    assert fit_logistic(np.ones(9), np.arange(9.0)) is None


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_leaves_nothing_to_say(strange: float) -> None:
    scores, truth = np.linspace(0, 1, 30), np.linspace(0, 1, 30) ** 2
    for one, other in ((np.where(scores > 0.9, strange, scores), truth), (truth, np.full(30, strange))):
        assert math.isnan(srcc(one, other)) and math.isnan(krcc(one, other))
        assert fit_logistic(one, other) is None and all(map(math.isnan, plcc_rmse(one, other)))


@settings(deadline=None)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=0, max_size=12),
    st.integers(0, 99),
)
def test_no_scores_whatever_are_an_error(values: list[float], seed: int) -> None:
    """Huge, tiny, equal, missing: what cannot be said is nan, and what is said is in its range."""
    scores, truth = np.asarray(values, float), np.random.default_rng(seed).random(len(values))
    for one, other in ((scores, truth), (truth, scores)):
        for value in (srcc(one, other), krcc(one, other)):
            assert math.isnan(value) or -1 <= value <= 1
        plcc, _ = plcc_rmse(one, other)
        assert math.isnan(plcc) or -1.001 <= plcc <= 1.001
