"""Candidate against champion, prompt by prompt, from the rows that both evaluations keep."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from components.runtime.errors import InputError
from components.runtime.gate.rules import Figure
from components.runtime.stats import clustered_mean


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
) -> Figure | None:
    """Mean of candidate minus champion with its 95 % interval by prompt; None where no pair has both.

    The two clips of a prompt and seed are one pair; pairs of a prompt are not independent, see
    `components.runtime.stats.Clusters.mean`. A score whose values all lie in 0..1 is taken for one of that
    scale.
    """
    theirs = {_key(row): row["aligned"].get(metric) for row in champion}
    differences, prompts, values = [], [], []
    for row in candidate:
        mine, other = row["aligned"].get(metric), theirs.get(_key(row))
        if _finite(mine) and _finite(other):
            differences.append(float(mine) - float(other))  # type: ignore[arg-type]
            prompts.append(row["prompt_id"])
            values += [mine, other]
    if not differences:
        return None
    bound = 1.0 if min(values) >= 0 and max(values) <= 1 else None
    found = clustered_mean(differences, prompts, bound)
    return Figure(found.value, *found.ends)


def same_requests(candidate: Iterable[dict[str, Any]], champion: Iterable[dict[str, Any]]) -> bool:
    """Whether both were made of the same prompts and seeds, as the rows themselves say."""
    return {_key(row) for row in candidate} == {_key(row) for row in champion}


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return str(row["prompt_id"]), str(row.get("index")), str(row.get("seed"))


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
