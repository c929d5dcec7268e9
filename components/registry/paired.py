"""Candidate against champion, prompt by prompt, from the rows that both evaluations keep."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any

from components.runtime.errors import InputError


@dataclass(frozen=True)
class Figure:
    """An estimate and the ends of its confidence interval, None where there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None


def read_rows(text: bytes, where: str) -> list[dict[str, Any]]:
    """The rows of a pairs.jsonl: prompt_id, index, seed, and the figures of both sides.

    Raises:
        InputError: a line that is no such row; it is named.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append({**row, "aligned": dict(row["aligned"]), "prompt_id": str(row["prompt_id"])})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"{where}, line {number}: not a pair of an evaluation") from error
    return rows


def difference(
    candidate: Sequence[dict[str, Any]],
    champion: Sequence[dict[str, Any]],
    metric: str,
    confidence: float = 0.95,
) -> Figure | None:
    """Mean of candidate minus champion over prompts, with a normal interval; None where no prompt has both.

    The two clips of a prompt and seed are one pair; pairs of a prompt are averaged first, because they are
    not independent, so the standard error is that of the prompts' means (the paired t statistic's, with the
    normal quantile).
    """
    theirs = {_key(row): row["aligned"].get(metric) for row in champion}
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for row in candidate:
        mine, other = row["aligned"].get(metric), theirs.get(_key(row))
        if _finite(mine) and _finite(other):
            by_prompt[row["prompt_id"]].append(float(mine) - float(other))  # type: ignore[arg-type]
    means = [fmean(values) for values in by_prompt.values()]
    if not means:
        return None
    if len(means) == 1:
        return Figure(means[0])
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * stdev(means) / math.sqrt(len(means))
    value = fmean(means)
    return Figure(value, value - half, value + half)


def same_requests(candidate: Iterable[dict[str, Any]], champion: Iterable[dict[str, Any]]) -> bool:
    """Whether both were made of the same prompts and seeds, as the rows themselves say."""
    return {_key(row) for row in candidate} == {_key(row) for row in champion}


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return str(row["prompt_id"]), str(row.get("index")), str(row.get("seed"))


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
