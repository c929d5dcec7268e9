"""Where a base comes from: a folder, a mirror in S3, a hub; and what is never read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from components.generator.generator import fetch_base, load_family
from components.generator.params import GeneratorParams
from components.generator.step import run
from components.runtime.errors import InputError
from components.runtime.io import storage
from tests.s3 import Store

Folder = Callable[[str], Path]
COMMIT = "0123abc"


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_mirror_in_s3_is_the_model(store: Store, model_folder: Folder, tmp_path: Path) -> None:
    storage.upload_dir(model_folder("ltx"), "s3://bucket/mirror/ltx")
    fetched = fetch_base("s3://bucket/mirror/ltx")
    assert files(fetched) == files(model_folder("ltx"))
    family = load_family(fetched, torch.device("cpu"))
    assert family.pipeline_class == "LTXPipeline"
    with pytest.raises(InputError, match="has no effect on s3://bucket/mirror/ltx"):
        fetch_base("s3://bucket/mirror/ltx", "main")


@pytest.fixture
def hub(model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub with one repository, as crowded as real ones; returns what was asked of it."""
    repository, asked = tmp_path / "hub", []
    shutil.copytree(model_folder("ltx"), repository)
    (repository / "ltx-one-file.safetensors").write_bytes(b"the same weights for another program")
    (repository / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"pickled")
    (repository / "media").mkdir()
    (repository / "media" / "examples.json").write_text("{}")

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append({"name": name, "revision": revision})
        to = tmp_path / "cache" / COMMIT
        for file in files(repository):
            if any(fnmatch(file, pattern) for pattern in allow_patterns):
                (to / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository / file, to / file)
        return str(to)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_of_a_hubs_repository_only_the_pipelines_own_files_are_fetched(
    hub: list[dict[str, Any]], model_folder: Folder, tmp_path: Path
) -> None:
    fetched = fetch_base("somebody/ltx", "v1")
    assert files(fetched) == files(model_folder("ltx"))
    assert hub == [
        {"name": "somebody/ltx", "revision": "v1"},
        {"name": "somebody/ltx", "revision": COMMIT},  # a branch that moves meanwhile changes nothing
    ]
    assert load_family(fetched, torch.device("cpu")).pipeline_class == "LTXPipeline"


def test_a_repository_that_is_no_pipeline_is_one_line(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "hub" / "model_index.json").write_text("not json")
    with pytest.raises(InputError, match=r"generator.base = 'somebody/ltx'"):
        fetch_base("somebody/ltx")


def test_a_folder_of_something_else_is_refused_by_the_users_own_name(store: Store, tmp_path: Path) -> None:
    """Before any work: videos, an index of another kind."""
    videos = tmp_path / "my videos"
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"video")
    storage.upload_dir(videos, "s3://bucket/videos")

    def said(base: str) -> str:
        with pytest.raises(InputError) as caught:
            run(GeneratorParams(base=base), corpus=tmp_path / "no corpus", out=tmp_path / "out")
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
        return str(caught.value)

    for base in (str(videos), "s3://bucket/videos"):
        assert said(base).startswith(f"generator.base = {base!r}: no diffusers pipeline")
    for text in ("not json", "[]", '{"_class_name": "FluxPipeline"}', '{"_class_name": ["x"]}'):
        (videos / "model_index.json").write_text(text)
        assert said(str(videos)).startswith(f"generator.base = {str(videos)!r}: ")


def test_pickled_weights_are_never_read(model_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(model_folder("modelscope"), folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match="weights cannot be loaded"):
        load_family(folder, torch.device("cpu"))


def test_half_precision_leaves_to_each_part_the_type_its_release_runs_in(model_folder: Folder) -> None:
    family = load_family(model_folder("wan-2.1"), torch.device("cpu"), "half")
    assert family.denoiser.dtype == family.pipeline.text_encoder.dtype == torch.bfloat16
    assert family.pipeline.vae.dtype == torch.float32
    assert family.denoiser.blocks[0].scale_shift_table.dtype == torch.float32


def test_the_index_names_the_family(model_folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(InputError, match=r"FluxPipeline is not supported; allowed: CogVideoX.*, WanPipeline"):
        load_family(tmp_path, torch.device("cpu"))
