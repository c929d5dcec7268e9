"""Paired comparison of two models on the same prompts and seeds: win rates, intervals, tests.

Everything takes values and returns values (numpy, float64); randomness comes in as a generator made from a
named seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.runtime.intervals import CONFIDENCE, Interval, wilson

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """One score compared over pairs.

    ``rate`` counts a tie as half a win, with its Wilson interval, which takes the pairs as independent;
    ``clustered_rate`` is the same rate with an interval from resampling prompts, which does not.
    """

    wins: int
    ties: int
    losses: int
    rate: Interval
    clustered_rate: Interval
    base_mean: float
    aligned_mean: float
    difference: Interval
    p_value: float

    @property
    def pairs(self) -> int:
        """Pairs in which both sides have a value."""
        return self.wins + self.ties + self.losses


class Clusters:
    """Pairs grouped by prompt, with one set of bootstrap resamples and sign flips shared by every score.

    Prompts, not pairs, are resampled: two seeds of a prompt are not two independent observations.

    Args:
        labels: the cluster (prompt) of every pair.
        resamples: number of bootstrap resamples and of sign flips.
        rng: source of randomness, from a named seed.
        confidence: coverage of the intervals.
    """

    def __init__(
        self,
        labels: Sequence[Hashable],
        resamples: int,
        rng: np.random.Generator,
        confidence: float = CONFIDENCE,
    ) -> None:
        if not labels:
            raise ValueError("a comparison needs at least one pair")
        order = {label: index for index, label in enumerate(dict.fromkeys(labels))}
        self.index = np.array([order[label] for label in labels])
        self.number = len(order)
        self.resamples = resamples
        self.confidence = confidence
        chances = np.full(self.number, 1.0 / self.number)
        self.draws: Array = rng.multinomial(self.number, chances, size=resamples).astype(np.float64)
        self.signs: Array = rng.choice(np.array([-1.0, 1.0]), size=(resamples, self.number))

    def _sums(self, values: Array) -> tuple[Array, Array]:
        """Per cluster: the sum of the finite values and how many there are."""
        kept = np.isfinite(values)
        sums = np.bincount(self.index[kept], weights=values[kept], minlength=self.number).astype(np.float64)
        counts = np.bincount(self.index[kept], minlength=self.number).astype(np.float64)
        return sums, counts

    def mean(self, values: Array) -> Interval:
        """Mean over pairs, percentile bootstrap interval clustered by prompt; NaN pairs are left out."""
        sums, counts = self._sums(values)
        if counts.sum() == 0:
            return Interval(float("nan"), float("nan"), float("nan"))
        drawn = self.draws @ counts
        means = (self.draws @ sums)[drawn > 0] / drawn[drawn > 0]
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(means, [tail, 1 - tail])
        return Interval(float(sums.sum() / counts.sum()), float(low), float(high))

    def ratio(self, above: Array, below: Array) -> Interval:
        """Ratio of two means over the same pairs, percentile bootstrap interval clustered by prompt.

        Pairs with a NaN on either side are left out; NaN where none is left or the lower mean is not above 0.
        """
        both = np.isfinite(above) & np.isfinite(below)
        top, bottom = (self._sums(np.where(both, side, np.nan))[0] for side in (above, below))
        if bottom.sum() <= 0:
            return Interval(float("nan"), float("nan"), float("nan"))
        drawn = self.draws @ bottom
        ratios = (self.draws @ top)[drawn > 0] / drawn[drawn > 0]
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(ratios, [tail, 1 - tail])
        return Interval(float(top.sum() / bottom.sum()), float(low), float(high))

    def sign_flip_p(self, differences: Array) -> float:
        """Two-sided p-value of "mean difference is 0" by flipping the sign of whole prompts at random.

        Exact under symmetry up to the number of flips; the observed arrangement counts as one of them,
        so p > 0.
        """
        sums, counts = self._sums(differences)
        if counts.sum() == 0:
            return float("nan")
        observed = abs(sums.sum())
        beyond = np.abs(self.signs @ sums) >= observed * (1 - 1e-12)
        return float((1 + beyond.sum()) / (1 + self.resamples))


def compare(base: Array, aligned: Array, clusters: Clusters, tie_margin: float = 0.0) -> Paired:
    """Aligned against base, pair by pair; pairs with a NaN on either side are left out.

    Args:
        base: (N,) scores of the base model, higher is better.
        aligned: (N,) scores of the aligned model, same prompts and seeds.
        clusters: the prompts of the N pairs.
        tie_margin: absolute differences up to this count as a tie.

    Raises:
        ValueError: lengths differ, or no pair has a value on both sides.
    """
    if not base.shape == aligned.shape == clusters.index.shape:
        raise ValueError(f"{base.shape}, {aligned.shape} and {clusters.index.shape} pairs cannot be compared")
    differences = aligned - base
    kept = np.isfinite(differences)
    if not kept.any():
        raise ValueError("no pair has a value on both sides")
    wins = int((differences[kept] > tie_margin).sum())
    losses = int((differences[kept] < -tie_margin).sum())
    ties = int(kept.sum()) - wins - losses
    outcome = np.where(differences > tie_margin, 1.0, np.where(differences < -tie_margin, 0.0, 0.5))
    outcome[~kept] = np.nan
    return Paired(
        wins=wins,
        ties=ties,
        losses=losses,
        rate=wilson(wins + 0.5 * ties, int(kept.sum()), clusters.confidence),
        clustered_rate=clusters.mean(outcome),
        base_mean=float(base[kept].mean()),
        aligned_mean=float(aligned[kept].mean()),
        difference=clusters.mean(differences),
        p_value=clusters.sign_flip_p(differences),
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p-values (Holm 1979): they bound the chance of any false claim."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}
