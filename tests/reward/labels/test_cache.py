"""The label cache: what was measured is not measured again, whatever happens to the file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.reward.labels import cache as module
from components.reward.labels import label as labelling
from components.reward.labels.cache import FILE, LabelCache, clip_digest, pair_key
from components.reward.labels.label import label
from components.runtime.errors import InputError
from tests.reward.labels.conftest import at_levels

KEYS = [bytes([i]) * 32 for i in range(5)]
ROWS = {key: (0.1 * i, 1.0, 2.0, 3.5) for i, key in enumerate(KEYS)}


def damage(folder: Path, key: bytes, value: object) -> None:
    base = sqlite3.connect(folder / FILE)
    with base:
        base.execute("UPDATE losses SET value = ? WHERE key = ?", (value, key))
    base.close()


def test_gives_back_what_was_put(tmp_path: Path) -> None:
    store = LabelCache(tmp_path / "deep" / "folder")
    assert store.get(KEYS) == {}
    store.put(ROWS)
    assert LabelCache(tmp_path / "deep" / "folder").get([*KEYS, b"?" * 32]) == ROWS


def test_many_keys_may_be_asked_for(tmp_path: Path) -> None:
    rows = {i.to_bytes(32, "big"): (float(i),) for i in range(1003)}
    store = LabelCache(tmp_path)
    store.put(rows)
    assert store.get(list(rows)) == rows


def test_a_second_run_computes_nothing(real: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder, levels = at_levels(real[2:6], "blur"), torch.arange(6)
    fresh = label(real[2:6], ladder, levels)
    first = label(real[2:6], ladder, levels, cache=tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(labelling, "losses", never)
    second = label(real[2:6], ladder, levels, cache=tmp_path)
    for one, two, three in zip(fresh, first, second, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)
    with pytest.raises(AssertionError, match="measured again"):
        label(real[1:5], at_levels(real[1:5], "blur"), levels, cache=tmp_path)
    monkeypatch.setattr(labelling, "VERSION", "another")
    with pytest.raises(AssertionError, match="measured again"):
        label(real[2:6], ladder, levels, cache=tmp_path)


@pytest.mark.parametrize("value", [b"", b"short", bytes(36), b"x" * 5000, "text", 7, None])
def test_a_damaged_row_is_measured_again_and_replaced(value: object, tmp_path: Path) -> None:
    store = LabelCache(tmp_path)
    store.put(ROWS)
    damage(tmp_path, KEYS[2], value)
    assert store.get(KEYS) == {key: row for key, row in ROWS.items() if key != KEYS[2]}
    store.put({KEYS[2]: ROWS[KEYS[2]]})
    assert store.get(KEYS) == ROWS


def test_a_row_under_another_key_is_damaged(tmp_path: Path) -> None:
    store = LabelCache(tmp_path)
    store.put(ROWS)
    damage(tmp_path, KEYS[2], module._packed(KEYS[3], ROWS[KEYS[3]]))
    assert KEYS[2] not in store.get(KEYS)


def test_a_damaged_row_leaves_the_label_right(real: Tensor, tmp_path: Path) -> None:
    ladder, levels = at_levels(real[:2], "blur"), torch.arange(6)
    fresh, _ = label(real[:2], ladder, levels, cache=tmp_path)
    base = sqlite3.connect(tmp_path / FILE)
    with base:
        base.execute("UPDATE losses SET value = zeroblob(36)")
    base.close()
    again, _ = label(real[:2], ladder, levels, cache=tmp_path)
    assert torch.equal(fresh, again)


@pytest.mark.parametrize("keep", [50, 5000])
def test_a_file_that_is_no_database_any_more_is_set_aside(keep: int, tmp_path: Path) -> None:
    store = LabelCache(tmp_path)
    store.put({i.to_bytes(32, "big"): (float(i),) * 4 for i in range(500)})
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:keep] + os.urandom(len(whole) - keep))
    assert store.get(KEYS) == {}
    store.put(ROWS)
    assert store.get(KEYS) == ROWS
    assert (tmp_path / f"{FILE}.damaged").is_file()


def test_putting_into_a_damaged_file_works_too(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database at all" * 100)
    store = LabelCache(tmp_path)
    store.put(ROWS)
    assert store.get(KEYS) == ROWS


def test_several_processes_append_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from components.reward.labels.cache import LabelCache\n"
        "store = LabelCache(sys.argv[1]); me = int(sys.argv[2])\n"
        "for i in range(40): store.put({(100 * me + i).to_bytes(32, 'big'): (float(i), float(me))})\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)]) for number in range(2)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    keys = {(100 * me + i).to_bytes(32, "big"): (float(i), float(me)) for me in range(2) for i in range(40)}
    assert LabelCache(tmp_path).get(list(keys)) == keys


def test_places_that_cannot_be_used_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"label cache .*file"):
        LabelCache(tmp_path / "file")
    (tmp_path / "cache" / FILE).mkdir(parents=True)
    with pytest.raises(InputError, match="label cache"):
        LabelCache(tmp_path / "cache").put(ROWS)


def test_digests_tell_clips_apart() -> None:
    clip = torch.zeros(4, 3, 6, 8, dtype=torch.uint8)
    other = clip.clone()
    other[3, 2, 5, 7] = 1
    found = {
        clip_digest(clip),
        clip_digest(other),
        clip_digest(clip.reshape(4, 3, 8, 6)),
        clip_digest(clip[:2]),
    }
    assert len(found) == 4
    assert clip_digest(clip.transpose(-1, -2)) == clip_digest(clip.reshape(4, 3, 8, 6))
    a, b = clip_digest(clip), clip_digest(other)
    assert len({pair_key(a, b, "1"), pair_key(b, a, "1"), pair_key(a, b, "2")}) == 3
