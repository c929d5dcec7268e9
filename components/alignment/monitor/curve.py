"""The training curve: one row for each iteration, and the metrics that summarise it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from components.alignment.candidates.pairs import REASONS, count_reasons
from components.alignment.strategies import RolloutBatch

Row = dict[str, float]
#: Columns of the training curve, in order.
COLUMNS = (
    "iteration", "updates", "reference_version", "reward_version", "clips", "pairs", "reward_mean",
    "reward_best", "spread_mean", "gap_mean", "motion_mean", "loss", "rewards/accuracies", "rewards/margins",
    "saturated",
    "winner_error", "loser_error", "winner_above_reference", "gradient_norm", "drift_from_base", "refilled",
    "gap_too_small", "within_noise", "winner_too_still", "too_few_finite", "judge_difference", "judge_low",
    "judge_high", "judge_win", "held_out_motion", "candidates_not_finite",
    "updates_skipped",
)  # fmt: skip
#: Figures of an iteration's updates that the metrics have, too.
OF_UPDATES = (
    "rewards/accuracies", "winner_error", "loser_error", "winner_above_reference", "saturated",
    "drift_from_base",
)  # fmt: skip
#: Counts of a row that add up over a run; those of groups without a pair by their reason.
COUNTS = ("clips", "pairs", "refilled", "candidates_not_finite", *REASONS[1:])


def figures_of(batch: RolloutBatch) -> Row:
    """Return an iteration's figures of its candidates and pairs; means are over finite values."""
    candidates = [candidate for group in batch.groups for candidate in group.candidates]
    rewards = [[c.reward for c in group.candidates if math.isfinite(c.reward)] for group in batch.groups]
    reasons = count_reasons(batch.decisions)
    return {
        "clips": float(batch.clips),
        "pairs": float(reasons.pop("accepted")),
        "reward_mean": _mean(reward for group in rewards for reward in group),
        "reward_best": _mean(max(group) for group in rewards if group),
        "spread_mean": _mean(c.uncertainty for c in candidates if math.isfinite(c.reward)),
        "gap_mean": _mean(decision.gap for decision in batch.decisions if decision.accepted),
        "motion_mean": _mean(c.motion for c in candidates),
        "refilled": float(batch.refilled),
        "candidates_not_finite": float(sum(not c.finite for c in candidates)),
        **{name: float(count) for name, count in reasons.items()},
    }


def summary(curve: Sequence[Row]) -> Row:
    """Return the metrics of a run's curve: the first and the last quarter show the effect of training."""
    quarter = max(1, len(curve) // 4)
    rewards = ("reward_mean", "motion_mean")
    means = [(f"{name}_first", name, curve[:quarter]) for name in rewards]
    means += [(f"{name}_last", name, curve[-quarter:]) for name in rewards]
    # An iteration without an update does not have these figures.
    means += [(name, name, [row for row in curve if name in row][-quarter:]) for name in OF_UPDATES]
    metrics = {
        metric: _mean(row[name] for row in rows if name in row)
        for metric, name, rows in means
        if any(name in row for row in rows)
    }
    return metrics | {name: sum(row[name] for row in curve) for name in COUNTS}


def write(curve: Sequence[Row], path: Path) -> None:
    """Write the curve as CSV; a figure that a row does not have is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(curve)


def _mean(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else 0.0
