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
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.vbench.files import measured_in, read_dimensions
from components.runtime.errors import InputError

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
#: No score of VBench's is larger as a fraction; a larger one is a percentage.
LARGEST = 1.5
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
        InputError: the file is missing, is not JSON, does not have this shape, holds percentages, or has a
            dimension whose videos were measured in different ways.
    """
    raw: dict[str, Raw] = {}
    for name, entry in read_dimensions(file).items():
        score = entry[0] if isinstance(entry, list) and entry else entry
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise InputError(
                f"results file {file}: {name} is {score!r}, expected [score, [per-video results]]"
            )
        videos = entry[1] if isinstance(entry, list) and len(entry) > 1 and isinstance(entry[1], list) else []
        refuse_per_cent(file, name, float(score))
        raw[name] = Raw(float(score), *measured_in(videos, f"results file {file}: {name}"))
    return raw


def refuse_per_cent(file: Path, name: str, score: float) -> None:
    """Refuse a score of one of VBench's dimensions that can only be a percentage.

    Raises:
        InputError: it is above `LARGEST`.
    """
    if name in RANGES and score > LARGEST:
        raise InputError(
            f"results file {file}: {name} is {score:g}; scores are fractions, at most 1: this looks like per "
            "cent, divide by 100"
        )


@dataclass(frozen=True)
class Sums:
    """The totals of a results file, by what they may be compared with.

    Attributes:
        official: of dimensions measured in VBench's way alone: comparable with published totals.
        ours: of these and of our variants; not comparable with published totals.
        all: of every dimension, those measured by substitutes of VBench's models too; not comparable either.
        mixed: why there is neither `ours` nor `all`; "" where there may be.
    """

    official: Totals
    ours: Totals
    all: Totals
    mixed: str = ""


def sums(raw: Mapping[str, Raw], with_variant: Collection[str] = ()) -> Sums:
    """The totals of what `read_raw` read.

    Args:
        raw: the scores.
        with_variant: the dimensions of which there are two variants, ours and the published one. No total
            has some of them in one variant, some in the other.
    """
    original = {name: one for name, one in raw.items() if not one.method}
    published = [name for name in with_variant if name in original and not raw[name].variant]
    varied = [name for name, one in raw.items() if one.variant]
    found = Sums(
        official=totals({name: one.score for name, one in original.items() if not one.variant}),
        ours=totals({name: one.score for name, one in original.items()}),
        all=totals({name: one.score for name, one in raw.items()}),
    )
    if not (varied and published):
        return found
    reason = (
        f"{', '.join(varied)} in our variant, {', '.join(published)} as published: measure all with one "
        "evaluation.compat"
    )
    ours, everything = (
        replace(one, quality=None, semantic=None, total=None) for one in (found.ours, found.all)
    )
    return Sums(found.official, ours, everything, reason)
