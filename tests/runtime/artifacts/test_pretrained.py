"""Where backbones come from: folders, mirrors and the hub's cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from components.reward.model.backbone import Backbone
from components.runtime.artifacts.pretrained import fetch
from components.runtime.errors import InputError
from components.runtime.io.storage import upload_dir
from tests.reward.model.tiny_backbones import write
from tests.s3 import Store


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert fetch(str(tmp_path)) == tmp_path
    assert fetch(f"file://{tmp_path}") == tmp_path


def test_a_mirror_is_copied_once_for_each_of_its_states(store: Store, tmp_path: Path) -> None:
    own = write(tmp_path / "own", "dinov2")
    upload_dir(own, "s3://bucket/mirror/dinov2")
    first = fetch("s3://bucket/mirror/dinov2/")
    assert contents(first) == contents(own)
    Backbone.load(first)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert fetch("s3://bucket/mirror/dinov2") == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    (own / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    upload_dir(own, "s3://bucket/mirror/dinov2", replaces=[path.name for path in own.iterdir()])
    second = fetch("s3://bucket/mirror/dinov2")
    assert second != first and contents(second) == contents(own)
    assert [path for path in second.parent.iterdir() if path.name.startswith(".")] == []


def test_an_empty_mirror_is_one_clear_line(store: Store) -> None:
    with pytest.raises(InputError, match="s3://bucket/nothing"):
        fetch("s3://bucket/nothing")


def test_a_hub_id_comes_from_the_hubs_cache_when_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write(tmp_path / "own", "siglip")
    commits = {"main": "0" * 40, "v2": "1" * 40}
    held = tmp_path / "hub" / "models--owner--name"
    for revision, commit in commits.items():
        (held / "refs").mkdir(parents=True, exist_ok=True)
        (held / "refs" / revision).write_text(commit)
        shutil.copytree(own, held / "snapshots" / commit)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert fetch("owner/name") == held / "snapshots" / commits["main"]
    assert fetch("owner/name@v2") == held / "snapshots" / commits["v2"]
    for name in ("owner/name@v3", "owner/other"):
        with pytest.raises(InputError, match=f"{name}.*HF_HUB_OFFLINE is set"):
            fetch(name)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "nowhere", "a/b/c", "owner//name"])
def test_what_is_neither_says_what_is_allowed(name: str) -> None:
    with pytest.raises(InputError, match="allowed are a folder, an s3:// prefix or a hub id"):
        fetch(name)


def test_another_scheme_is_refused() -> None:
    with pytest.raises(InputError, match="gs://"):
        fetch("gs://bucket/model")
