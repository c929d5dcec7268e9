"""An estimate with its 95 % interval: of a share (Wilson), of a mean over clusters (bootstrap)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate with the two ends of its confidence interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927); ``successes`` may hold halves for ties.

    Raises:
        ValueError: no trials, or successes outside 0..trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def bootstrap_mean(values: Sequence[float], rng: np.random.Generator) -> Interval:
    """Mean of one finite value per cluster; percentile interval from clusters drawn with replacement.

    Raises:
        ValueError: no values, or one is not finite.
    """
    kept = np.asarray(values, dtype=np.float64)
    if not len(kept) or not np.isfinite(kept).all():
        raise ValueError(f"a mean with an interval needs finite values, got {len(kept)}")
    drawn = rng.integers(0, len(kept), (RESAMPLES, len(kept)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(kept[drawn].mean(1), (tail, 1 - tail))
    return Interval(float(kept.mean()), float(low), float(high))
