"""Agreement between scores and a truth: rank and linear correlations, the VQEG logistic, a clustered
bootstrap."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

RESAMPLES = 10_000


def srcc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Spearman rank correlation, ties averaged; nan when either side is constant or shorter than 3."""
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(stats.spearmanr(scores, truth).statistic)


def krcc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Kendall rank correlation, tau-b; nan when either side is constant or shorter than 3."""
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(stats.kendalltau(scores, truth).statistic)


def logistic(x: np.ndarray, b1: float, b2: float, b3: float, b4: float) -> np.ndarray:
    """The VQEG monotone logistic b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|))."""
    z = np.clip((x - b3) / max(abs(b4), 1e-12), -60.0, 60.0)
    return b2 + (b1 - b2) / (1.0 + np.exp(-z))


def plcc_rmse(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Pearson correlation and root mean square error after the fitted 4-parameter logistic.

    Where the fit does not converge, the least-squares line stands in for it (a logistic's limit for large
    |b4|).
    """
    if len(scores) < 5 or np.ptp(scores) == 0 or np.ptp(truth) == 0:
        return float("nan"), float("nan")
    start = (truth.max(), truth.min(), float(np.median(scores)), float(scores.std()) / 2 or 1.0)
    slope, offset = np.polyfit(scores, truth, 1)
    line = slope * scores + offset
    try:
        with warnings.catch_warnings():
            # Only the curve is used, not the covariance that it may fail to estimate.
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            found, _ = optimize.curve_fit(logistic, scores, truth, p0=start, maxfev=4000)
        fitted = logistic(scores, *found)
    except RuntimeError:
        fitted = line
    if (
        not np.isfinite(fitted).all()
        or np.ptp(fitted) == 0
        or ((fitted - truth) ** 2).sum() > ((line - truth) ** 2).sum()
    ):
        fitted = line
    return float(np.corrcoef(fitted, truth)[0, 1]), float(np.sqrt(np.mean((fitted - truth) ** 2)))


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap percentile interval, and the number of clusters behind it."""

    mean: float
    low: float
    high: float
    clusters: int


def bootstrap_mean(values: Sequence[float], seed: int, resamples: int = RESAMPLES) -> Interval:
    """Mean of one value per cluster, clusters drawn with replacement; 95 % percentile interval. nan values
    are left out."""
    kept = np.asarray([value for value in values if np.isfinite(value)], dtype=float)
    if len(kept) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    drawn = np.random.default_rng(seed).integers(0, len(kept), (resamples, len(kept)))
    low, high = np.percentile(kept[drawn].mean(1), (2.5, 97.5))
    return Interval(float(kept.mean()), float(low), float(high), len(kept))
