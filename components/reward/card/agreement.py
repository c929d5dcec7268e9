"""How scores of held-out ladders agree with their labels and their order: by column, type and family."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.reward.card.card import Agreement, Column, Figure
from components.reward.card.correlation import krcc, plcc_rmse, srcc
from components.reward.card.heldout import PRISTINE
from components.reward.distortions import FAMILIES, REGISTRY
from components.reward.ladders.ladder import Ladders
from components.runtime.stats import mean_over_clusters


def masks(ladders: Ladders, seen: set[str]) -> dict[str, np.ndarray]:
    """(N,) mask of the ladders of every column, in the order of the card.

    Args:
        ladders: of single distortions, levels 0 to 5.
        seen: distortions that the reward was trained on.
    """
    source = np.asarray(ladders.sources)
    known = np.asarray([recipe[0] in seen for recipe in ladders.recipes])
    pristine = np.isin(source, PRISTINE)
    return {
        "world": (source == "world") & known,
        "footage": (source == "footage") & known,
        "all": pristine & known,
        "heldout_types": pristine & ~known,
        "generated": (source == "generated") & known,
        "heldout_types_generated": (source == "generated") & ~known,
    }


def columns(scores: np.ndarray, ladders: Ladders, rows: dict[str, np.ndarray]) -> dict[str, Column]:
    """The column of every mask that picks any ladder; `scores` (N, 6), `rows` as from `masks`."""
    return {
        name: measure_column(scores[mask], ladders.where(mask.tolist()))
        for name, mask in rows.items()
        if mask.any()
    }


def counted_clips(ladders: Ladders) -> np.ndarray:
    """(N, K) mask of the clips that correlations are taken over: those that have a label and differ visibly
    from their original, and every content's original once, however many ladders stand on it."""
    seen = ladders.seen.numpy() > 0
    known = ~np.isnan(ladders.labels.numpy())
    counted = known & np.concatenate((np.zeros((len(ladders), 1), bool), seen[:, 0, 1:]), axis=1)
    first: set[str] = set()
    for row, content in enumerate(ladders.contents):
        if known[row, 0] and content not in first:
            first.add(content)
            counted[row, 0] = True
    return counted


def measure_column(scores: np.ndarray, ladders: Ladders) -> Column:
    """Compares the scores of ladders with their labels and with their order.

    Pairs too alike to be told apart are left out of every count.
    """
    seen = ladders.seen.numpy() > 0
    counted = counted_clips(ladders)
    flat, truth = scores[counted], ladders.labels.numpy()[counted]
    plcc, rmse = plcc_rmse(flat, truth)
    lead, tied = scores[:, :, None] > scores[:, None, :], scores[:, :, None] == scores[:, None, :]
    first, second = np.triu_indices(scores.shape[1], 1)

    def ordered(chosen: np.ndarray, untied: bool = False) -> float:
        where = first[chosen], second[chosen]
        mask = seen[:, *where] & ~(tied[:, *where] & untied)
        return float(lead[:, *where][mask].mean()) if mask.any() else float("nan")

    adjacent = second - first == 1
    steps = first[adjacent], second[adjacent]
    whole = [
        bool(row[mask].all())
        for row, mask in zip(lead[:, *steps], seen[:, *steps], strict=True)
        if mask.any()
    ]
    return Column(
        clips=int(counted.sum()) if counted.any() else int(scores.size),
        ladders=len(ladders),
        srcc=srcc(flat, truth),
        krcc=krcc(flat, truth),
        plcc=plcc,
        rmse=rmse,
        srcc_fidelity=srcc(flat, ladders.similarity.numpy()[counted]),
        reference_above=ordered(first == 0),
        adjacent_ordered=ordered(adjacent),
        two_apart_ordered=ordered(second - first == 2),
        pairs_ordered=ordered(first >= 0),
        pairs_ordered_untied=ordered(first >= 0, untied=True),
        fully_ordered=float(np.mean(whole)) if whole else float("nan"),
    )


def by_group(scores: np.ndarray, ladders: Ladders, names: Sequence[str]) -> dict[str, dict[str, Figure]]:
    """How ladders of every group are ranked, each source by itself and together.

    Args:
        scores: (N, 6).
        names: N, the group of each ladder.

    Returns:
        By group "adjacent", the share of neighbours in order; "srcc", the rank correlation with the label on
        pristine sources together, and "srcc_<source>" on each; for every source "pairs_<source>", the share
        of all pairs of a ladder in order, and "above_<source>", how often the original lies above its
        distorted copies.
    """
    group, source = np.asarray(names), np.asarray(ladders.sources)
    table: dict[str, dict[str, Figure]] = {}
    for name in dict.fromkeys(names):
        mine = group == name
        row = table.setdefault(name, {})
        row["adjacent"] = measure_column(scores[mine], ladders.where(mine.tolist())).adjacent_ordered
        pristine = mine & np.isin(source, PRISTINE)
        if pristine.any():
            row["srcc"] = measure_column(scores[pristine], ladders.where(pristine.tolist())).srcc
        for kind in dict.fromkeys(ladders.sources):
            mask = mine & (source == kind)
            if mask.any():
                column = measure_column(scores[mask], ladders.where(mask.tolist()))
                row[f"above_{kind}"] = column.reference_above
                row[f"pairs_{kind}"] = column.pairs_ordered
                if kind in PRISTINE:
                    row[f"srcc_{kind}"] = column.srcc
    return table


def by_type(scores: np.ndarray, ladders: Ladders) -> dict[str, dict[str, Figure]]:
    """The groups are the distortions, in the registry's order."""
    groups = by_group(scores, ladders, [recipe[0] for recipe in ladders.recipes])
    return {name: groups[name] for name in REGISTRY if name in groups}


def by_family(scores: np.ndarray, ladders: Ladders) -> dict[str, dict[str, Figure]]:
    """The groups are the families of distortions."""
    groups = by_group(scores, ladders, [REGISTRY[recipe[0]].family for recipe in ladders.recipes])
    return {name: groups[name] for name in FAMILIES if name in groups}


def within_groups(scores: np.ndarray, judged: np.ndarray) -> tuple[Agreement, float]:
    """Rank correlation of two (P, N) verdicts inside each group, with its interval over groups; and pair
    accuracy.

    Groups in which either side is constant say nothing and are left out. The interval is over prompts, not
    clips.
    """
    each = [srcc(a, b) for a, b in zip(scores, judged, strict=True)]
    right, total = 0.0, 0
    for a, b in zip(scores, judged, strict=True):
        order_a, order_b = np.sign(a[:, None] - a[None]), np.sign(b[:, None] - b[None])
        upper = np.triu(np.ones_like(order_b, dtype=bool), 1) & (order_b != 0)
        right += float((order_a == order_b)[upper].sum())
        total += int(upper.sum())
    mean = mean_over_clusters(each, bound=1.0)
    low, high = mean.ends
    return Agreement(mean.value, low, high, mean.clusters), right / total if total else float("nan")
