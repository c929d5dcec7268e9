"""VBench's Quality, Semantic and Total scores from its sixteen dimensions.

Constants and arithmetic as in VBench's ``scripts/cal_final_score.py`` and ``scripts/constant.py``
(Apache-2.0, figures only): every raw score is scaled by ``(raw - low) / (high - low)`` without clipping;
Quality is the weighted mean of seven dimensions (dynamic degree counts half), Semantic the plain mean of
nine, Total weighs them four to one.

VBench scores a missing dimension as raw 0, which the scaling turns negative. Here a total is absent as long
as one of its dimensions is missing, and the missing ones are named.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.vbench.files import VBenchResult
from components.runtime.tables import columns

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
class FileTotals:
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


def file_totals(results: Mapping[str, VBenchResult], with_variant: Collection[str] = ()) -> FileTotals:
    """The totals of a result file.

    Args:
        results: by dimension; the videos do not matter.
        with_variant: the dimensions of which there are two variants, ours and the published one. No total
            has some of them in one variant, some in the other.
    """
    original = {name: one for name, one in results.items() if not one.method}
    published = [name for name in with_variant if name in original and not original[name].variant]
    varied = [name for name, one in results.items() if one.variant]
    sums = FileTotals(
        official=totals({name: one.score for name, one in original.items() if not one.variant}),
        ours=totals({name: one.score for name, one in original.items()}),
        all=totals({name: one.score for name, one in results.items()}),
    )
    if not (varied and published):
        return sums
    nothing: dict[str, Any] = dict.fromkeys(("quality", "semantic", "total"))
    return replace(
        sums,
        ours=replace(sums.ours, **nothing),
        all=replace(sums.all, **nothing),
        mixed=f"{', '.join(varied)} in our variant, {', '.join(published)} as published: measure all with "
        "one evaluation.compat",
    )


def totals_as_text(results: Mapping[str, VBenchResult], sums: FileTotals) -> str:
    """Scores, scaled scores and totals in per cent, a line each, with why a figure is absent."""
    rows: list[tuple[str, ...]] = []
    for name in QUALITY + SEMANTIC:
        if name not in results:
            rows.append((name, "n/a", "not in the file"))
        elif (result := results[name]).method:
            rows.append((name, "n/a", f"{result.measured_by} ({100 * result.score:.2f})"))
        else:
            ours = "  our variant" if result.variant else ""
            scaled = 100 * sums.ours.scaled[name]
            rows.append((name, f"{100 * result.score:.2f}", f"scaled {scaled:8.2f}{ours}"))
    varied = any(one.variant for one in results.values())
    for name in ("quality", "semantic", "total"):
        value = getattr(sums.official, name)
        rows.append(
            (name, "n/a", _other_total(sums, name, varied)) if value is None else (name, f"{100 * value:.2f}")
        )
    return "\n".join(columns(rows, left=(0, 2)) + [f"no total: {sums.mixed}"] * bool(sums.mixed))


def totals_as_json(results: Mapping[str, VBenchResult], sums: FileTotals) -> str:
    """The same as JSON."""
    otherwise = {name: one.method for name, one in results.items() if one.method}
    variants = [name for name, one in results.items() if one.variant]
    content: dict[str, object] = {"unit": "per cent"} | _per_cent(sums.official)
    content |= {"missing": sums.official.missing, "scaled": sums.ours.scaled}
    content |= {"measured_otherwise": otherwise, "variants": variants, "mixed": sums.mixed}
    content |= {"with_our_variants": _per_cent(sums.ours)} if variants else {}
    content |= {"with_substitutes": _per_cent(sums.all)} if otherwise else {}
    return json.dumps(content, indent=2)


def _other_total(sums: FileTotals, name: str, ours: bool) -> str:
    """A total that must not be compared with published ones, marked; "" where there is none either."""
    both = " and our variants" if ours else ""
    for one, mark in ((sums.ours, "with our variants"), (sums.all, f"with substitutes{both}")):
        value = getattr(one, name)
        if value is not None:
            return f"{100 * value:.2f} {mark}, not comparable with published totals"
    return ""


def _per_cent(sums: Totals) -> dict[str, object]:
    values = {"quality": sums.quality, "semantic": sums.semantic, "total": sums.total}
    return {name: None if value is None else 100 * value for name, value in values.items()}
