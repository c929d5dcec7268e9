"""Paired comparison of two models on the same prompts and seeds: win rate, change, test.

Takes values and returns values (numpy, float64); intervals and tests are those of `components.runtime.stats`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.runtime.stats import Clusters, Interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """One score compared over pairs, every interval clustered by prompt.

    Attributes:
        rate: share of pairs that the aligned model wins, a tie counting half.
        difference: mean of aligned minus base.
        p_value: of "the mean difference is 0", two-sided.
        prompts: distinct prompts of the pairs; there are no intervals below 10.
    """

    wins: int
    ties: int
    losses: int
    rate: Interval
    base_mean: float
    aligned_mean: float
    difference: Interval
    p_value: float
    prompts: int

    @property
    def pairs(self) -> int:
        """Pairs in which both sides have a value."""
        return self.wins + self.ties + self.losses


def compare(
    base: Array, aligned: Array, clusters: Clusters, tie_margin: float = 0.0, bound: float | None = None
) -> Paired:
    """Aligned against base, pair by pair; pairs with a NaN on either side are left out.

    Args:
        base: (N,) scores of the base model, higher is better.
        aligned: (N,) scores of the aligned model, same prompts and seeds.
        clusters: the prompts of the N pairs.
        tie_margin: absolute differences up to this count as a tie.
        bound: the largest difference that there can be, 1 for scores in 0..1; None where there is none.

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
    outcome = np.where(differences > tie_margin, 1.0, np.where(differences < -tie_margin, 0.0, 0.5))
    outcome[~kept] = np.nan
    return Paired(
        wins=wins,
        ties=int(kept.sum()) - wins - losses,
        losses=losses,
        rate=clusters.rate(outcome),
        base_mean=float(base[kept].mean()),
        aligned_mean=float(aligned[kept].mean()),
        difference=clusters.mean(differences, bound),
        p_value=clusters.sign_flip_p(differences),
        prompts=len(np.unique(clusters.index[kept])),
    )
