"""Candidate against champion, prompt by prompt, from the rows that both evaluations keep."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from components.runtime.errors import InputError
from components.runtime.stats import Interval, clustered_mean


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
    candidate: Sequence[dict[str, Any]], champion: Sequence[dict[str, Any]], metric: str
) -> Interval | None:
    """Mean of candidate minus champion with its 95 % interval by prompt; None where no pair has both.

    The two clips of a prompt and seed are one pair; pairs of a prompt are not independent, see
    `components.runtime.stats.Clusters.mean`. A score whose values all lie in 0..1 is taken for one of that
    scale.
    """
    theirs = {_key(row): row["aligned"].get(metric) for row in champion}
    pairs = [
        (row["prompt_id"], mine, other)
        for row in candidate
        if _finite(mine := row["aligned"].get(metric)) and _finite(other := theirs.get(_key(row)))
    ]
    if not pairs:
        return None
    prompts, mines, others = zip(*pairs, strict=True)
    differences = [mine - other for mine, other in zip(mines, others, strict=True)]
    bound = 1.0 if min(mines + others) >= 0 and max(mines + others) <= 1 else None
    return clustered_mean(differences, prompts, bound)


def same_requests(candidate: Iterable[dict[str, Any]], champion: Iterable[dict[str, Any]]) -> bool:
    """Whether both were made of the same prompts and seeds, as the rows themselves say."""
    return {_key(row) for row in candidate} == {_key(row) for row in champion}


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return str(row["prompt_id"]), str(row.get("index")), str(row.get("seed"))


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
