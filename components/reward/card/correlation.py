"""Agreement between scores and a truth: rank and linear correlations, the VQEG logistic."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats


def _comparable(scores: np.ndarray, truth: np.ndarray, least: int) -> bool:
    """Whether both sides are long enough, finite and not constant: else no correlation is defined."""
    if len(scores) < least or not (np.isfinite(scores).all() and np.isfinite(truth).all()):
        return False
    return bool(scores.max() > scores.min() and truth.max() > truth.min())


def srcc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Spearman rank correlation, ties averaged; nan when either side is constant, not finite or shorter than
    3."""
    if not _comparable(scores, truth, 3):
        return float("nan")
    return float(stats.spearmanr(scores, truth).statistic)


def krcc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Kendall rank correlation, tau-b; nan when either side is constant, not finite or shorter than 3."""
    if not _comparable(scores, truth, 3):
        return float("nan")
    return float(stats.kendalltau(scores, truth).statistic)


def logistic(x: np.ndarray, b1: float, b2: float, b3: float, b4: float) -> np.ndarray:
    """The VQEG monotone logistic b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|))."""
    z = np.clip((x - b3) / max(abs(b4), 1e-12), -60.0, 60.0)
    return b2 + (b1 - b2) / (1.0 + np.exp(-z))


@dataclass(frozen=True)
class Fit:
    """A monotone curve from score to truth: the VQEG logistic, or the line that stood in for it.

    Attributes:
        logistic: b1, b2, b3, b4 of `logistic`; None where the line fitted better.
        line: slope and offset.
    """

    logistic: tuple[float, float, float, float] | None
    line: tuple[float, float]

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """The truth that the curve reads from the scores."""
        if self.logistic is None:
            return self.line[0] * scores + self.line[1]
        return logistic(scores, *self.logistic)


def fit_logistic(scores: np.ndarray, truth: np.ndarray) -> Fit | None:
    """The 4-parameter logistic by least squares; None where either side is constant, not finite or shorter
    than 5, or where the scores differ by too little, or too much, for a line to be laid through them.

    Where the fit does not converge, the least-squares line stands in for it (a logistic's limit for large
    |b4|).
    """
    if not _comparable(scores, truth, 5):
        return None
    # Scores on an absurd scale overflow in here; what comes of that is looked at below.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Of the line and the curve only the values are used, not how well they are determined.
        warnings.simplefilter("ignore", np.exceptions.RankWarning)
        warnings.simplefilter("ignore", optimize.OptimizeWarning)
        start = (truth.max(), truth.min(), float(np.median(scores)), float(scores.std()) / 2 or 1.0)
        try:
            slope, offset = np.polyfit(scores, truth, 1)
        except np.linalg.LinAlgError:
            return None
        line = Fit(None, (float(slope), float(offset)))
        if not np.isfinite(line(scores)).all():
            return None
        try:
            parameters, _ = optimize.curve_fit(logistic, scores, truth, p0=start, maxfev=4000)
        except (RuntimeError, ValueError, np.linalg.LinAlgError):
            return line
        b1, b2, b3, b4 = (float(value) for value in parameters)
        curved = Fit((b1, b2, b3, b4), line.line)
        fitted = curved(scores)
        if not np.isfinite(fitted).all() or np.ptp(fitted) == 0:
            return line
        return line if np.square(fitted - truth).sum() > np.square(line(scores) - truth).sum() else curved


def plcc_rmse(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Pearson correlation and root mean square error after `fit_logistic`; nan where there is no fit."""
    fit = fit_logistic(scores, truth)
    if fit is None:
        return float("nan"), float("nan")
    fitted = fit(scores)
    # A curve of two levels of which all clips reach but one says nothing.
    if not _comparable(fitted, truth, 5):
        return float("nan"), float("nan")
    with np.errstate(all="ignore"):
        return float(np.corrcoef(fitted, truth)[0, 1]), float(np.sqrt(np.mean((fitted - truth) ** 2)))
