"""The ledger's columns: what every candidate's row says, with a column for each aspect of the reward."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import torch

from components.alignment.ledger import join_parts, rows_of, write_part
from components.alignment.pairs import Candidate, Verdict
from components.alignment.rollout import Group
from components.corpus import Prompt


def write(folder: Path, iteration: int, version: int) -> None:
    candidates = [
        Candidate("p", i, 70 + i, float(i), 1.0, spread=0.1 * i, aspects={"codec": 2.0 * i, "temporal": -1.0})
        for i in range(3)
    ]
    group = Group(Prompt("p", "a film", "train"), torch.empty(0), candidates)
    rows = rows_of(
        iteration, [group], [Verdict("p", 2, 0, 2.0, "accepted")], reference_version=5,
        reward_version=version, reward_digest=f"digest {version}",
    )  # fmt: skip
    write_part(folder, iteration, rows)


def test_rows_name_the_version_that_judged_them_and_joining_changes_none(tmp_path: Path) -> None:
    write(tmp_path, 0, version=0)
    write(tmp_path, 1, version=1)
    join_parts(tmp_path, 2, tmp_path / "all.parquet")
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert [(r["iteration"], r["reward_version"], r["reward_digest"]) for r in rows] == [
        (0, 0, "digest 0")
    ] * 3 + [(1, 1, "digest 1")] * 3
    last = rows[-1]
    assert last["reward"] == 2.0 and last["reward_spread"] == 0.2 and last["seed"] == 72
    assert last["aspect_codec"] == 4.0 and last["aspect_temporal"] == -1.0
    assert [r["role"] for r in rows[:3]] == ["loser", "", "winner"]
    assert rows[:3] == pq.read_table(tmp_path / "000000.parquet").to_pylist()


def test_a_reward_without_aspects_has_no_columns_for_them(tmp_path: Path) -> None:
    group = Group(Prompt("p", "a film", "train"), torch.empty(0), [Candidate("p", 0, 7, 0.5, 1.0)])
    verdict = Verdict("p", None, None, 0.0, "too_few_finite")
    rows = rows_of(
        0, [group], [verdict], reference_version=0, reward_version=0, reward_digest="d"
    )  # fmt: skip
    write_part(tmp_path, 0, rows)
    names = pq.read_table(tmp_path / "000000.parquet").column_names
    assert not [name for name in names if name.startswith("aspect")]
    assert "reward_spread" in names
