"""The dozen figures that people compare between runs: what `dvc metrics show` and `dvc metrics diff` print.

All other figures are in the metrics.json of the steps' artifacts.
"""

from __future__ import annotations

import json
from pathlib import Path

from components.runtime.artifacts.artifact import METRICS
from components.runtime.errors import InputError

#: Names in the metrics.json of each step. One that a run does not have is left out.
HEADLINE: dict[str, tuple[str, ...]] = {
    "generator": ("shape",),
    "reward": ("srcc_footage", "judge_srcc", "gate_room"),
    "alignment": ("rewards/accuracies", "kept_iteration"),
    "evaluation": (
        "win_rate_judge",
        "win_rate_reward",
        "motion_ratio",
        "diversity_ratio",
        "worst_semantic_delta",
    ),
    "registry": ("accepted",),
}


def figures_of(step: str, artifact: Path) -> dict[str, float]:
    """The headline figures of a step's artifact.

    Raises:
        InputError: a step without any, or no finished artifact is there.
    """
    if step not in HEADLINE:
        raise InputError(f"{step}: has no headline figures; allowed: {', '.join(HEADLINE)}")
    file = artifact / METRICS
    if not file.is_file():
        raise InputError(f"{file}: nothing there; run the step first: python -m components.{step} run")
    metrics = json.loads(file.read_text(encoding="utf-8"))
    return {name: metrics[name] for name in HEADLINE[step] if name in metrics}
