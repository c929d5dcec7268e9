"""Two or more result files on the same videos: per dimension, what changed and what may be said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.comparison.paired import Paired, compare
from components.evaluation.comparison.table import ends
from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.vbench.files import SEED, VBenchResult, prompt_of, read_results
from components.evaluation.vbench.totals import RANGES
from components.runtime.compute.seeds import numpy_rng
from components.runtime.errors import InputError
from components.runtime.stats import CONFIDENCE, FEWEST, Clusters, holm, plain
from components.runtime.tables import columns
from components.video.names import composed

#: Largest harmless fall of a dimension, as a share of its range in VBench's totals.
MARGIN = 0.03


@dataclass(frozen=True)
class AnalysisPlan:
    """What is decided before looking.

    Attributes:
        margin: largest harmless fall, as a share of each dimension's range (VBench's, 0..1 for others).
        margins: by dimension, another share.
        resamples: sign flips of the tests.
        seed: of the flips.
    """

    margin: float = MARGIN
    margins: Mapping[str, float] | None = None
    resamples: int = 10_000
    seed: int = 0

    def of(self, dimension: str) -> float:
        """The largest harmless fall of a dimension's raw score."""
        low, high = RANGES.get(dimension, (0.0, 1.0))
        return (self.margins or {}).get(dimension, self.margin) * (high - low)


@dataclass(frozen=True)
class Change:
    """One dimension of one candidate against the base.

    Attributes:
        paired: over the videos that both have.
        p_holm: p-value after Holm's correction over everything compared.
        margin: the largest harmless fall of the raw score, stated before looking.
        better, worse: shown, with 95 % confidence, after the correction; never by fewer than 10 prompts.
        not_inferior: the whole interval of the difference lies above -margin.
        inferior: the whole interval lies below -margin.
        unpaired: videos that only one of the two has.
        seeds: whether both files say that the pairs share their seeds; None where they do not say.
        measured: how both were measured where that is not VBench's way: its models' substitute, our variant.
    """

    paired: Paired
    p_holm: float
    margin: float
    better: bool
    worse: bool
    not_inferior: bool
    inferior: bool
    unpaired: int
    seeds: bool | None
    measured: str = ""

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.paired.prompts < FEWEST:
            return f"not shown: {self.paired.prompts} prompts, {FEWEST} needed"
        if self.better:
            return "better"
        if self.inferior:
            return "inferior"
        if self.worse:
            return "worse, within the margin" if self.not_inferior else "worse"
        return "not inferior" if self.not_inferior else "open"


@dataclass(frozen=True)
class ResultComparison:
    """Every candidate against the first file.

    Attributes:
        base: the first file's name.
        changes: by candidate, by dimension.
        skipped: by candidate, by dimension, why it is not compared.
        plan: as stated.
    """

    base: str
    changes: dict[str, dict[str, Change]]
    skipped: dict[str, dict[str, str]]
    plan: AnalysisPlan


def run(files: Sequence[Path], plan: AnalysisPlan) -> ResultComparison:
    """Compare result files, VBench's or ours, with the first one, video by video.

    Videos are paired by file name (prompt and number) and clustered by prompt.

    Raises:
        InputError: fewer than two files, two of one name, one that cannot be read or holds percentages, or
            nothing in common that was measured in the same way.
    """
    if len(files) < 2:
        raise InputError("compare needs two result files or more: the base first, then the candidates")
    names = [file.stem.removesuffix("_eval_results") for file in files]
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    if len(set(names)) < len(names):
        raise InputError(f"compare: {files[0]} is named twice")
    base = read_results(files[0])
    changes: dict[str, dict[str, Change]] = {}
    skipped: dict[str, dict[str, str]] = {}
    for file, name in zip(files[1:], names[1:], strict=True):
        candidate = read_results(file)
        changes[name], skipped[name] = {}, {}
        both = {*base, *candidate}
        known = [dimension for dimension in QUALITY + SEMANTIC if dimension in both]
        for dimension in known + sorted(both - set(known)):
            compared = _compared(base.get(dimension), candidate.get(dimension), dimension, plan)
            if isinstance(compared, Change):
                changes[name][dimension] = compared
            else:
                skipped[name][dimension] = compared
        if not changes[name]:
            reasons = "; ".join(f"{key}: {why}" for key, why in skipped[name].items())
            raise InputError(f"{file}: nothing to compare with {files[0]}: {reasons}")
    return ResultComparison(names[0], _corrected(changes), skipped, plan)


def _compared(
    base: VBenchResult | None, candidate: VBenchResult | None, dimension: str, plan: AnalysisPlan
) -> Change | str:
    """One dimension's change before the correction, or why there is none."""
    if base is None or candidate is None:
        return f"only in {'the candidate' if base is None else 'the base'}"
    if (base.method, base.variant) != (candidate.method, candidate.variant):
        return f"measured by {base.measured_by} and by {candidate.measured_by}"
    before, after = ({composed(video.name): video for video in one.videos} for one in (base, candidate))
    shared = sorted(before.keys() & after.keys())
    if not shared:
        return "no video of the same name in both"
    rng = numpy_rng(plan.seed, "evaluation", "compare", dimension)
    clusters = Clusters([prompt_of(name) for name in shared], plan.resamples, rng)
    old, new = (np.array([videos[name].value for name in shared]) for videos in (before, after))
    bound = 1.0 if all(0 <= value <= 1 for value in (*old, *new)) else None
    paired, margin = compare(old, new, clusters, bound=bound), plan.of(dimension)
    seeds = [(before[name].more.get(SEED), after[name].more.get(SEED)) for name in shared]
    said = all(seed is not None for pair in seeds for seed in pair)
    return Change(
        paired=paired,
        p_holm=paired.p_value,
        margin=margin,
        better=False,
        worse=False,
        not_inferior=paired.difference.low >= -margin,
        inferior=paired.difference.high < -margin,
        unpaired=len(before.keys() ^ after.keys()),
        seeds=all(one == other for one, other in seeds) if said else None,
        measured=base.measured_by if base.method or base.variant else "",
    )


def _corrected(changes: Mapping[str, Mapping[str, Change]]) -> dict[str, dict[str, Change]]:
    """The changes with Holm's correction over all of them, and what it leaves to be said."""
    p_holm = holm(
        {f"{name}\n{key}": one.p_holm for name, found in changes.items() for key, one in found.items()}
    )
    corrected: dict[str, dict[str, Change]] = {}
    for name, found in changes.items():
        corrected[name] = {}
        for key, one in found.items():
            p = p_holm[f"{name}\n{key}"]
            shown, gain = p < 1 - CONFIDENCE and one.paired.prompts >= FEWEST, one.paired.difference.value
            corrected[name][key] = replace(one, p_holm=p, better=shown and gain > 0, worse=shown and gain < 0)
    return corrected


def as_json(comparison: ResultComparison) -> dict[str, Any]:
    """The comparison as plain JSON values; ends of intervals that there are not are null."""
    content: dict[str, Any] = {
        "base": comparison.base,
        "margin": comparison.plan.margin,
        "margins": dict(comparison.plan.margins or {}),
        "confidence": CONFIDENCE,
        "candidates": {
            name: {
                "dimensions": {key: asdict(one) | {"verdict": one.verdict} for key, one in changes.items()},
                "skipped": comparison.skipped[name],
            }
            for name, changes in comparison.changes.items()
        },
    }
    return plain(content)  # type: ignore[no-any-return]


def as_table(comparison: ResultComparison) -> str:
    """A block for each candidate, under 110 columns."""
    lines = []
    for name, changes in comparison.changes.items():
        lines.append(f"{name} against {comparison.base}")
        change = f"change [{100 * CONFIDENCE:g} % interval]"
        rows = [("", "base", "cand.", change, "won/tied/lost", "p (Holm)", "verdict")]
        for key, one in changes.items():
            pair, gap = one.paired, one.paired.difference
            means = (f"{pair.base_mean:.4f}", f"{pair.aligned_mean:.4f}")
            change = f"{gap.value:+.4f} {ends(gap, '+.4f')}"
            counts = f"{pair.wins}/{pair.ties}/{pair.losses}"
            rows.append((key, *means, change, counts, f"{one.p_holm:.4f}", one.verdict))
        lines += columns(rows, left=(0, 3, 6))
        lines += [f"{key}: not compared: {why}" for key, why in comparison.skipped[name].items()]
        lines += [f"{key}: not VBench's: {one.measured}" for key, one in changes.items() if one.measured]
        if unpaired := sum(one.unpaired for one in changes.values()):
            lines.append(f"{unpaired} videos are in one file only and were left out")
        if any(one.seeds is False for one in changes.values()):
            lines.append("some pairs do not share their seed")
        elif any(one.seeds is None for one in changes.values()):
            lines.append("paired by prompt and number; the files do not say whether the seeds are the same")
        lines.append("")
    stated = f"{100 * comparison.plan.margin:g} % of each dimension's range in VBench's totals"
    margins = (comparison.plan.margins or {}).items()
    others = ", ".join(f"{key} {100 * share:g} %" for key, share in margins)
    lines.append(f"harmless fall, stated before looking: {stated}{f' ({others})' if others else ''}")
    return "\n".join(lines)
