"""Two or more result files on the same videos: per dimension, what changed and what may be said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.comparison.paired import Paired, compare
from components.evaluation.comparison.table import ends
from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.vbench.files import (
    PER_VIDEO_SCALE,
    SEED,
    Result,
    VideoResult,
    in_words,
    prompt_of,
    read_results,
)
from components.evaluation.vbench.totals import LARGEST, RANGES, refuse_per_cent
from components.runtime.compute.seeds import numpy_rng
from components.runtime.errors import InputError
from components.runtime.stats import FEWEST, Clusters, holm, plain
from components.video.names import composed

#: Largest harmless fall of a dimension, as a share of its range in VBench's totals.
MARGIN = 0.03


@dataclass(frozen=True)
class Terms:
    """What is decided before looking.

    Attributes:
        margin: largest harmless fall, as a share of each dimension's range (VBench's, 0..1 for others).
        margins: by dimension, another share.
        confidence: coverage of the intervals; tests are held to 1 - confidence.
        resamples: sign flips of the tests.
        seed: of the flips.
    """

    margin: float = MARGIN
    margins: Mapping[str, float] | None = None
    confidence: float = 0.95
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
        better, worse: shown, at the stated confidence, after the correction; never by fewer than 10 prompts.
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
class Contest:
    """Every candidate against the first file.

    Attributes:
        base: the first file's name.
        changes: by candidate, by dimension.
        skipped: by candidate, by dimension, why it is not compared.
        terms: as stated.
    """

    base: str
    changes: dict[str, dict[str, Change]]
    skipped: dict[str, dict[str, str]]
    terms: Terms


def run(files: Sequence[Path], terms: Terms) -> Contest:
    """Compare result files, VBench's or ours, with the first one, video by video.

    Videos are paired by file name (prompt and number) and resampled by prompt.

    Raises:
        InputError: fewer than two files, two of one name, one that cannot be read or holds percentages, or
            nothing in common that was measured in the same way.
    """
    if len(files) < 2:
        raise InputError("compare needs two result files or more: the base first, then the candidates")
    names = [_name(file) for file in files]
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    if len(set(names)) < len(names):
        raise InputError(f"compare: {files[0]} is named twice")
    base = _read(files[0])
    paired: dict[str, dict[str, tuple[Paired, int, bool | None]]] = {}
    skipped: dict[str, dict[str, str]] = {}
    for file, name in zip(files[1:], names[1:], strict=True):
        candidate = _read(file)
        paired[name], skipped[name] = {}, {}
        for dimension in _in_order({*base, *candidate}):
            reason = _not_comparable(base.get(dimension), candidate.get(dimension))
            if reason is not None:
                skipped[name][dimension] = reason
                continue
            paired[name][dimension] = _pair(base[dimension], candidate[dimension], dimension, terms)
        if not paired[name]:
            reasons = "; ".join(f"{key}: {why}" for key, why in skipped[name].items())
            raise InputError(f"{file}: nothing to compare with {files[0]}: {reasons}")
    return Contest(names[0], _judged(paired, terms, base), skipped, terms)


def _read(file: Path) -> dict[str, Result]:
    """A result file whose figures are fractions, those of its videos as well."""
    results = read_results(file)
    for name, result in results.items():
        values = [one.value for one in result.videos]
        refuse_per_cent(file, name, result.score)
        refuse_per_cent(file, name, max(values, default=0.0))
        factor = PER_VIDEO_SCALE.get(name, 1.0)
        if values and factor != 1 and factor * max(values) <= LARGEST < factor * result.score:
            raise InputError(
                f"results file {file}: the videos of {name} have figures of 0..1, VBench's are of "
                f"0..{factor:g}"
            )
    return results


def _judged(
    paired: Mapping[str, Mapping[str, tuple[Paired, int, bool | None]]],
    terms: Terms,
    base: Mapping[str, Result],
) -> dict[str, dict[str, Change]]:
    corrected = holm(
        {f"{name}\n{key}": one[0].p_value for name, found in paired.items() for key, one in found.items()}
    )
    changes: dict[str, dict[str, Change]] = {}
    for name, found in paired.items():
        changes[name] = {}
        for key, (one, unpaired, seeds) in found.items():
            margin, p_holm = terms.of(key), corrected[f"{name}\n{key}"]
            shown = p_holm < 1 - terms.confidence and one.prompts >= FEWEST
            changes[name][key] = Change(
                paired=one,
                p_holm=p_holm,
                margin=margin,
                better=shown and one.difference.value > 0,
                worse=shown and one.difference.value < 0,
                not_inferior=one.difference.low >= -margin,
                inferior=one.difference.high < -margin,
                unpaired=unpaired,
                seeds=seeds,
                measured=_way(base[key]) if base[key].method or base[key].variant else "",
            )
    return changes


def _pair(base: Result, candidate: Result, dimension: str, terms: Terms) -> tuple[Paired, int, bool | None]:
    one, other = ({composed(video.name): video for video in result.videos} for result in (base, candidate))
    shared = sorted(one.keys() & other.keys())
    rng = numpy_rng(terms.seed, "evaluation", "compare", dimension)
    clusters = Clusters([prompt_of(name) for name in shared], terms.resamples, rng, terms.confidence)
    before, after = (np.array([side[name].value for name in shared]) for side in (one, other))
    seeds = [_same_seed(one[name], other[name]) for name in shared]
    same = None if any(found is None for found in seeds) else all(seeds)
    inside = all(0 <= value <= 1 for value in (*before, *after))
    paired = compare(before, after, clusters, bound=1.0 if inside else None)
    return paired, len(one.keys() ^ other.keys()), same


def _same_seed(one: VideoResult, other: VideoResult) -> bool | None:
    if SEED not in one.more or SEED not in other.more:
        return None
    return bool(one.more[SEED] == other.more[SEED])


def _not_comparable(base: Result | None, candidate: Result | None) -> str | None:
    if base is None or candidate is None:
        return f"only in {'the candidate' if base is None else 'the base'}"
    if (base.method, base.variant) != (candidate.method, candidate.variant):
        return f"measured by {_way(base)} and by {_way(candidate)}"
    if not {composed(one.name) for one in base.videos} & {composed(one.name) for one in candidate.videos}:
        return "no video of the same name in both"
    return None


def _way(result: Result) -> str:
    return in_words(result.method, result.variant)


def _in_order(names: set[str]) -> list[str]:
    known = [name for name in QUALITY + SEMANTIC if name in names]
    return known + sorted(names - set(known))


def _name(file: Path) -> str:
    return file.stem.removesuffix("_eval_results")


def as_json(contest: Contest) -> dict[str, Any]:
    """The comparison as plain JSON values; ends of intervals that there are not are null."""
    found: dict[str, Any] = {
        "base": contest.base,
        "margin": contest.terms.margin,
        "margins": dict(contest.terms.margins or {}),
        "confidence": contest.terms.confidence,
        "candidates": {
            name: {
                "dimensions": {key: asdict(one) | {"verdict": one.verdict} for key, one in changes.items()},
                "skipped": contest.skipped[name],
            }
            for name, changes in contest.changes.items()
        },
    }
    return plain(found)  # type: ignore[no-any-return]


def as_table(contest: Contest) -> str:
    """A block for each candidate, under 110 columns."""
    percent = f"{100 * contest.terms.confidence:g} %"
    lines = []
    for name, found in contest.changes.items():
        lines.append(f"{name} against {contest.base}")
        lines.append(
            f"{'':24}{'base':>9}{'cand.':>9}   {f'change [{percent} interval]':30}"
            f"{'won/tied/lost':>15}{'p (Holm)':>10}  verdict"
        )
        for key, one in found.items():
            pair, gap = one.paired, one.paired.difference
            lines.append(
                f"{key:24}{pair.base_mean:9.4f}{pair.aligned_mean:9.4f}   "
                f"{f'{gap.value:+.4f} ' + ends(gap, '+.4f'):30}"
                f"{f'{pair.wins}/{pair.ties}/{pair.losses}':>15}{one.p_holm:10.4f}  {one.verdict}"
            )
        lines += [f"{key:24} not compared: {why}" for key, why in contest.skipped[name].items()]
        lines += [f"{key:24} not VBench's: {one.measured}" for key, one in found.items() if one.measured]
        alone = sum(one.unpaired for one in found.values())
        if alone:
            lines.append(f"{alone} videos are in one file only and were left out")
        if any(one.seeds is False for one in found.values()):
            lines.append("some pairs do not share their seed")
        elif any(one.seeds is None for one in found.values()):
            lines.append("paired by prompt and number; the files do not say whether the seeds are the same")
        lines.append("")
    stated = f"{100 * contest.terms.margin:g} % of each dimension's range in VBench's totals"
    others = ", ".join(f"{key} {100 * share:g} %" for key, share in (contest.terms.margins or {}).items())
    lines.append(f"harmless fall, stated before looking: {stated}{f' ({others})' if others else ''}")
    return "\n".join(lines) + "\n"
