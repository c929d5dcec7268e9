"""Local files: whole or absent, locked between processes; equal weights are equal bytes."""

from __future__ import annotations

import json
import os
import stat
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from components.runtime.io.files import (
    atomic_dir,
    atomic_file,
    file_lock,
    sort_safetensors_header,
    write_atomically,
)


def test_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "clip.mp4"
    with atomic_file(target) as aside:
        assert aside.suffix == ".mp4" and aside.parent == target.parent and not target.exists()
        aside.write_text("first")
    with pytest.raises(KeyError), atomic_file(target) as aside:
        aside.write_text("half")
        raise KeyError
    assert target.read_text() == "first"
    write_atomically(target, "ü")
    write_atomically(target.with_name("bytes"), b"\x00")
    assert target.read_text(encoding="utf-8") == "ü"
    assert sorted(path.name for path in target.parent.iterdir()) == ["bytes", "clip.mp4"]


def test_secret_file_is_never_readable_by_others(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "password", mode=0o600) as aside:
        assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "made"
    for content in ("first", "second"):
        with atomic_dir(target) as aside:
            (aside / "file").write_text(content)
    with pytest.raises(KeyError), atomic_dir(target) as aside:
        (aside / "file").write_text("half")
        raise KeyError
    assert (target / "file").read_text() == "second"
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert os.listdir(tmp_path) == ["made"]


def locked_for(file: Path, timeout_s: float) -> bool:
    try:
        with file_lock(file, timeout_s):
            return True
    except TimeoutError:
        return False


def test_lock_holds_off_another_process(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with get_context("spawn").Pool(1) as pool:
        with file_lock(file):
            assert not pool.apply(locked_for, (file, 0.0))
        assert pool.apply(locked_for, (file, 0.0))


def test_no_lock_where_the_file_cannot_be_locked(tmp_path: Path) -> None:
    with file_lock(tmp_path / "absent" / "lock"):
        pass


def reordered(path: Path, header: dict[str, object]) -> None:
    """Write the file's header anew with its keys in the order given, as another process might have."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def header_of(path: Path) -> dict[str, object]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert isinstance(header, dict)
    return header


def test_equal_tensors_are_equal_files(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 5), "a": torch.arange(7, dtype=torch.int64), "half": torch.ones(3).half()}
    notes = {"format": "pt", "other": 'ü "quoted"', "again": "{}"}
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for path in (one, two):
        save_file(tensors, path, notes)
    turned = dict(reversed(header_of(two).items()))
    turned["__metadata__"] = dict(reversed(sorted(notes.items())))
    reordered(two, turned)
    assert one.read_bytes() != two.read_bytes()
    for path in (one, two):
        sort_safetensors_header(path)
    assert one.read_bytes() == two.read_bytes()
    read = load_file(one)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    with safe_open(one, "pt") as file:
        assert file.metadata() == notes
    before = one.read_bytes()
    sort_safetensors_header(one)
    assert one.read_bytes() == before
