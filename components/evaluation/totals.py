"""VBench's Quality, Semantic and Total scores from its sixteen dimensions.

Constants and arithmetic as in VBench's ``scripts/cal_final_score.py`` and ``scripts/constant.py``
(Apache-2.0, figures only): every raw score is scaled by ``(raw - low) / (high - low)`` without clipping;
Quality is the weighted mean of seven dimensions (dynamic degree counts half), Semantic the plain mean of
nine, Total weighs them four to one.

VBench scores a missing dimension as raw 0, which the scaling turns negative. Here a total is absent as long
as one of its dimensions is missing, and the missing ones are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.evaluation.vbench_files import read_dimensions
from components.runtime.errors import InputError

QUALITY: tuple[str, ...] = (
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
SEMANTIC: tuple[str, ...] = (
    "object_class",
    "multiple_objects",
    "human_action",
    "color",
    "spatial_relationship",
    "scene",
    "appearance_style",
    "temporal_style",
    "overall_consistency",
)
RANGES: dict[str, tuple[float, float]] = {name: (0.0, 1.0) for name in QUALITY + SEMANTIC} | {
    "subject_consistency": (0.1462, 1.0),
    "background_consistency": (0.2615, 1.0),
    "temporal_flickering": (0.6293, 1.0),
    "motion_smoothness": (0.706, 0.9975),
    "scene": (0.0, 0.8222),
    "appearance_style": (0.0009, 0.2855),
    "temporal_style": (0.0, 0.364),
    "overall_consistency": (0.0, 0.364),
}
WEIGHTS: dict[str, float] = {name: 1.0 for name in QUALITY + SEMANTIC} | {"dynamic_degree": 0.5}
QUALITY_SHARE, SEMANTIC_SHARE = 4.0, 1.0


@dataclass(frozen=True)
class Totals:
    """Scaled scores (0..1 for a raw score inside its range) and the totals that can honestly be formed."""

    scaled: dict[str, float]
    quality: float | None
    semantic: float | None
    total: float | None
    missing: tuple[str, ...]


def scale(name: str, raw: float) -> float:
    """VBench's normalisation of one raw score (fractions, not per cent); not clipped."""
    low, high = RANGES[name]
    return (raw - low) / (high - low)


def totals(scores: Mapping[str, float]) -> Totals:
    """Totals from raw scores by VBench dimension name (fractions); names VBench does not know are ignored."""
    scaled = {name: scale(name, scores[name]) for name in QUALITY + SEMANTIC if name in scores}

    def weighted(names: tuple[str, ...]) -> float | None:
        if any(name not in scaled for name in names):
            return None
        return sum(WEIGHTS[name] * scaled[name] for name in names) / sum(WEIGHTS[name] for name in names)

    quality, semantic = weighted(QUALITY), weighted(SEMANTIC)
    total = None
    if quality is not None and semantic is not None:
        total = (QUALITY_SHARE * quality + SEMANTIC_SHARE * semantic) / (QUALITY_SHARE + SEMANTIC_SHARE)
    missing = tuple(name for name in QUALITY + SEMANTIC if name not in scaled)
    return Totals(scaled, quality, semantic, total, missing)


@dataclass(frozen=True)
class Raw:
    """One dimension of a results file: its raw score, and how it was measured where that is not VBench's way.

    Attributes:
        score: fraction, not per cent.
        method: what replaced VBench's own model, "" where nothing did.
        variant: "ours" where the definition differs from the published one by choice, else "".
    """

    score: float
    method: str = ""
    variant: str = ""


def read_raw(file: Path) -> dict[str, Raw]:
    """Every dimension of a VBench results file ``{dimension: [score, [{video_path, video_results, ...}]]}``.

    One that carries ``method`` was not measured by VBench's own models, and must not enter a total that is
    compared with published ones.

    Raises:
        InputError: the file is missing, is not JSON, or does not have this shape.
    """
    raw: dict[str, Raw] = {}
    for name, entry in read_dimensions(file).items():
        score = entry[0] if isinstance(entry, list) and entry else entry
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise InputError(
                f"results file {file}: {name} is {score!r}, expected [score, [per-video results]]"
            )
        videos = entry[1] if isinstance(entry, list) and len(entry) > 1 and isinstance(entry[1], list) else []
        about = [
            next((str(v[key]) for v in videos if isinstance(v, dict) and v.get(key)), "")
            for key in ("method", "variant")
        ]
        raw[name] = Raw(float(score), *about)
    return raw
