"""Simulated sets of clustered figures whose truth is known, for what intervals cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from components.runtime.stats import Interval

Array = NDArray[np.float64]
SETTINGS = [(10, 1, 0.0), (10, 5, 0.0), (10, 5, 0.6), (20, 5, 0.0), (20, 5, 0.6), (96, 2, 0.0), (96, 2, 0.6),
            (96, 5, 0.0), (96, 5, 0.6)]  # fmt: skip
"""Clusters, observations in each, and the intraclass correlation of the normal variable behind them."""


@dataclass(frozen=True)
class Covered:
    """Of simulated sets: shares whose interval lies wholly below and wholly above the truth."""

    below: float
    above: float

    @property
    def held(self) -> float:
        """Share of the intervals that hold the truth."""
        return 1 - self.below - self.above


def latent(rng: np.random.Generator, clusters: int, each: int, icc: float) -> Array:
    """(clusters * each,) standard normal, correlated by ``icc`` inside a cluster."""
    shared = rng.normal(size=(clusters, 1)) * np.sqrt(icc)
    drawn: Array = (shared + rng.normal(size=(clusters, each)) * np.sqrt(1 - icc)).ravel()
    return drawn


def covered(
    make: Callable[[np.random.Generator], Interval], truth: float, sets: int, seed: int = 0
) -> Covered:
    """Draw ``sets`` intervals and compare each with the truth."""
    rng = np.random.default_rng(seed)
    found = [make(rng) for _ in range(sets)]
    below = float(np.mean([one.high < truth for one in found]))
    return Covered(below, float(np.mean([one.low > truth for one in found])))


def normal(z: Array) -> Array:
    """Mean 0."""
    return z


def exponential(z: Array) -> Array:
    """Mean 1, skewness 2."""
    return -np.log1p(-np.asarray(stats.norm.cdf(z)))


def lognormal(z: Array) -> Array:
    """Mean 1, skewness 1.75."""
    return np.exp(0.5 * z - 0.125)


def won(chance: float) -> Callable[[Array], Array]:
    """1 with this chance, else 0."""
    limit = stats.norm.ppf(chance)
    return lambda z: (z < limit).astype(float)


def changed(rise: float, fall: float) -> Callable[[Array], Array]:
    """1 with chance ``rise``, -1 with chance ``fall``, else 0: a yes-or-no score, aligned less base."""
    top, bottom = stats.norm.ppf(1 - rise), stats.norm.ppf(fall)
    return lambda z: (z > top).astype(float) - (z < bottom)
