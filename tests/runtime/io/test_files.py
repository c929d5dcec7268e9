"""Local files: equal weights are equal bytes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from components.runtime.io.files import sort_safetensors_header


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
