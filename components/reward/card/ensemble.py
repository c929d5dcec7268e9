"""Whether the standard deviation of an ensemble predicts its errors, and each aspect its own family."""

from __future__ import annotations

import numpy as np

from components.reward.card.card import Figure, Uncertainty, Wins
from components.reward.card.correlation import fit_logistic, srcc
from components.reward.distortions import FAMILIES, REGISTRY
from components.reward.ladders.ladder import Ladders


def error_srcc(scores: np.ndarray, std: np.ndarray, labels: np.ndarray) -> float:
    """Rank correlation of the std with the error |fitted score - label|; nan entries of labels are left
    out."""
    known = ~np.isnan(labels)
    fit = fit_logistic(scores[known], labels[known])
    if fit is None:
        return float("nan")
    return srcc(std[known], np.abs(fit(scores[known]) - labels[known]))


def split_by_uncertainty(scores: np.ndarray, std: np.ndarray, better: np.ndarray) -> dict[str, Wins]:
    """Right decisions among pairs whose scores lie further apart than their mean std, and among the others.

    Args:
        scores, std: (N, K) of K clips each.
        better: (N, K, K) whether clip i is better than clip j; pairs without a better one do not count.

    Returns:
        "beyond" and "within".
    """
    counted = better.astype(bool)
    gap = scores[:, :, None] - scores[:, None, :]
    reach = (std[:, :, None] + std[:, None, :]) / 2
    right, far = (gap > 0)[counted], (np.abs(gap) > reach)[counted]
    return {
        "beyond": Wins.counted(int(right[far].sum()), int(far.sum())),
        "within": Wins.counted(int(right[~far].sum()), int((~far).sum())),
    }


def aspect_falls(aspects: dict[str, np.ndarray], ladders: Ladders) -> dict[str, dict[str, Figure]]:
    """How far every aspect falls from the original to the worst level, by family of damage.

    Args:
        aspects: (N, K) by name.

    Returns:
        family -> aspect -> mean fall, divided by the aspect's fall on its own family: 1 on the diagonal,
        near 0 beside it where aspects are apart. nan where an aspect does not fall on its own family at all.
    """
    family = np.asarray([REGISTRY[recipe[0]].family for recipe in ladders.recipes])
    falls: dict[str, dict[str, float]] = {
        name: {
            str(kind): float((values[family == kind][:, 0] - values[family == kind][:, -1]).mean())
            for kind in FAMILIES
            if (family == kind).any()
        }
        for name, values in aspects.items()
    }
    table: dict[str, dict[str, Figure]] = {}
    for kind in FAMILIES:
        for name, by_family in falls.items():
            own = by_family.get(name, 0.0)
            if kind in by_family:
                share = by_family[kind] / own if own > 0 else float("nan")
                table.setdefault(kind, {})[name] = share
    return table


def uncertainty(
    ladders: Ladders,
    scores: np.ndarray,
    std: np.ndarray,
    aspects: dict[str, np.ndarray],
    groups: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> Uncertainty:
    """Everything about the ensemble's standard deviation and the aspects of held-out ladders.

    Args:
        scores, std: (N, 6).
        aspects: (N, 6) by family.
        groups: (P, N) scores, std and an independent judge's verdicts on a generator's samples.
    """
    seen = ladders.seen.numpy() > 0
    pairs = {}
    for source in dict.fromkeys(ladders.sources):
        rows = np.asarray([name == source for name in ladders.sources])
        pairs[f"{source}_ladders"] = split_by_uncertainty(scores[rows], std[rows], seen[rows])
    if groups is not None:
        verdicts = groups[2]
        pairs["judged_samples"] = split_by_uncertainty(
            groups[0], groups[1], verdicts[:, :, None] > verdicts[:, None, :]
        )
    error = error_srcc(scores.ravel(), std.ravel(), ladders.labels.numpy().ravel())
    return Uncertainty(error, pairs, aspect_falls(aspects, ladders))
