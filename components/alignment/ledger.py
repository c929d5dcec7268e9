"""The pair ledger: one immutable row for every candidate ever drawn, with what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.alignment.pairs import Verdict
from components.alignment.rollout import Group

SCHEMA = pa.schema(
    [
        ("iteration", pa.int32()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("candidate", pa.int32()),
        ("seed", pa.int64()),
        ("reward", pa.float64()),
        ("reward_spread", pa.float64()),
        ("motion", pa.float64()),
        ("role", pa.string()),
        ("gap", pa.float64()),
        ("verdict", pa.string()),
        ("reference_version", pa.int32()),
        ("reward_version", pa.int32()),
        ("reward_digest", pa.string()),
    ]
)
"""What every ledger has. A reward that gives aspects adds a float64 column `aspect_<name>` for each."""

ASPECT = "aspect_"


def rows_of(
    iteration: int,
    groups: Sequence[Group],
    verdicts: Sequence[Verdict],
    *,
    reference_version: int,
    reward_version: int,
    reward_digest: str,
) -> list[dict[str, Any]]:
    """Return an iteration's rows, one per candidate; ``role`` is winner, loser or empty.

    ``reward_version`` and ``reward_digest`` name the reward that judged them.
    """
    rows = []
    for group, verdict in zip(groups, verdicts, strict=True):
        for candidate in group.candidates:
            role = {verdict.winner: "winner", verdict.loser: "loser"}.get(candidate.index, "")
            rows.append(
                {
                    "iteration": iteration,
                    "prompt_id": group.prompt.id,
                    "prompt": group.prompt.text,
                    "candidate": candidate.index,
                    "seed": candidate.seed,
                    "reward": candidate.reward,
                    "reward_spread": candidate.spread,
                    "motion": candidate.motion,
                    "role": role,
                    "gap": verdict.gap,
                    "verdict": verdict.reason,
                    "reference_version": reference_version,
                    "reward_version": reward_version,
                    "reward_digest": reward_digest,
                    **{f"{ASPECT}{name}": value for name, value in candidate.aspects.items()},
                }
            )
    return rows


def write_part(folder: Path, iteration: int, rows: Sequence[dict[str, Any]]) -> None:
    """Write one iteration's rows, whole or not at all.

    Written again after a resume, they are the same rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{iteration:06d}.parquet"
    aspects = dict.fromkeys(name for row in rows for name in row if name.startswith(ASPECT))
    schema = pa.schema([*SCHEMA, *((name, pa.float64()) for name in aspects)])
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), aside)
    aside.rename(folder / f"{iteration:06d}.parquet")


def join_parts(folder: Path, iterations: int, target: Path) -> None:
    """Join the parts of all iterations into one Parquet file."""
    tables = [pq.read_table(folder / f"{iteration:06d}.parquet") for iteration in range(iterations)]
    pq.write_table(pa.concat_tables(tables), target)
