"""Parts and the table they make: nothing changes on the way, a half-written part is none."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from components.alignment.ledger import LedgerWriter
from components.alignment.ledger import writer as writing
from components.alignment.ledger.schema import content_digest
from tests.alignment.ledger.made import PROMPTS, group, write


def rows(file: Path) -> list[dict[str, object]]:
    return pq.read_table(file).to_pylist()


def test_joining_changes_no_row(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "parts")
    write(writer, 0, [group(PROMPTS[0], [0.0, 1.0, 2.0])])
    write(writer, 1, [group(PROMPTS[1], [3.0, 1.0]), group(PROMPTS[2], [5.0, 5.0])])
    writer.publish(tmp_path, 2)
    parts = rows(tmp_path / "parts/000000.parquet") + rows(tmp_path / "parts/000001.parquet")
    assert rows(tmp_path / "ledger.parquet") == parts
    assert [row["iteration"] for row in parts] == [0, 0, 0, 1, 1, 1, 1]


def test_latents_lie_under_their_digests(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "parts")
    write(writer, 0, [group(PROMPTS[0], [0.0, 1.0, 2.0])])
    write(writer, 1, [group(PROMPTS[0], [1.0, 1.0])])
    writer.publish(tmp_path, 2)
    kept = load_file(tmp_path / "latents/000000.safetensors")
    assert {content_digest(clip) for clip in kept.values()} == set(kept)
    assert {row["latents"] for row in rows(tmp_path / "ledger.parquet")} == {*kept, ""}
    # No pair, no file.
    assert [file.name for file in (tmp_path / "latents").iterdir()] == ["000000.safetensors"]


def test_pairs_are_used_in_their_own_iteration(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "parts")
    write(writer, 0, [group(PROMPTS[0], [0.0, 1.0, 2.0])])
    write(writer, 1, [group(PROMPTS[0], [1.0, 1.0])])
    writer.publish(tmp_path, 2)
    assert [row["used"] for row in rows(tmp_path / "ledger.parquet")] == [[0], [], [0], [], []]


def test_written_again_a_part_is_the_same_to_the_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(LedgerWriter(tmp_path / name), 0, [group(PROMPTS[0], [0.0, 1.0, 2.0])])
    write(LedgerWriter(tmp_path / "two"), 0, [group(PROMPTS[0], [0.0, 1.0, 2.0])])
    for name in ("000000.parquet", "latents/000000.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_part_that_was_cut_short_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(table: object, file: Path) -> None:
        file.write_bytes(b"PAR1 and no more")
        raise KeyboardInterrupt

    writer = LedgerWriter(tmp_path)
    monkeypatch.setattr(writing.pq, "write_table", cut)
    with pytest.raises(KeyboardInterrupt):
        write(writer, 0, [group(PROMPTS[0], [0.0, 1.0])])
    assert not writer.has(0)
    monkeypatch.undo()
    write(writer, 0, [group(PROMPTS[0], [0.0, 1.0])])
    assert writer.has(0) and len(rows(tmp_path / "000000.parquet")) == 2


def test_parts_with_and_without_aspects_join(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "parts")
    write(writer, 0, [])
    write(writer, 1, [group(PROMPTS[0], [0.0, 1.0])])
    writer.publish(tmp_path, 2)
    assert [row["aspect_codec"] for row in rows(tmp_path / "ledger.parquet")] == [0.0, 2.0]
