"""Bases without weights: what the published facts count to, and that a folder's own facts are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError

from components.generator.families import FAMILIES
from components.generator.generator import load_family
from components.planning.blueprints import PUBLISHED, blueprint_of, build, published
from components.runtime.errors import InputError
from components.runtime.io import storage
from tests.generator.tiny import TINY
from tests.s3 import Store


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def wan(width: int, ffn: int, layers: int, channels: int) -> int:
    """A Wan transformer's parameters by its paper's architecture: text 4096, times by 256 frequencies."""
    attention = 4 * linear(width, width) + 2 * width  # q, k, v, out; norms of q and k
    block = 2 * attention + 2 * width + linear(width, ffn) + linear(ffn, width) + 6 * width
    patch, out = linear(channels * 4, width), linear(width, channels * 4)
    text = linear(4096, width) + linear(width, width)
    time = linear(256, width) + linear(width, width) + linear(width, 6 * width)
    return layers * block + patch + text + time + out + 2 * width


def ltx(width: int, layers: int) -> int:
    """An LTX-Video transformer's parameters: 128 channels, text of 4096."""
    attention = 4 * linear(width, width) + 2 * width
    block = 2 * attention + linear(width, 4 * width) + linear(4 * width, width) + 6 * width
    text = linear(4096, width) + linear(width, width)
    time = linear(256, width) + linear(width, width) + linear(width, 6 * width)
    return layers * block + linear(128, width) + linear(width, 128) + text + time + 2 * width


def cogvideox(heads: int, layers: int) -> int:
    """A CogVideoX transformer's parameters: heads of 64, times of 512, 16 channels, patches of 2 x 2."""
    width = 64 * heads
    norm_zero = linear(512, 6 * width) + 2 * width
    attention = 4 * linear(width, width) + 4 * 64
    block = 2 * norm_zero + attention + linear(width, 4 * width) + linear(4 * width, width)
    patch = linear(16 * 4, width) + linear(4096, width)
    time = linear(width, 512) + linear(512, 512)
    out = 2 * width + linear(512, 2 * width) + 2 * width + linear(width, 16 * 4)
    return layers * block + patch + time + out


BY_HAND = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": wan(1536, 8960, 30, 16),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": wan(5120, 13824, 40, 16),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": 2 * wan(5120, 13824, 40, 16),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": wan(3072, 14336, 30, 48),
    "Lightricks/LTX-Video": ltx(2048, 28),
    "zai-org/CogVideoX-2b": cogvideox(30, 30),
    "zai-org/CogVideoX-5b": cogvideox(48, 42),
}
#: Names round: CogVideoX's 2B has 1.69 billion, its 5B 5.57, Wan's 1.3B 1.42, ModelScope's 1.7B 1.84.
NAMED_WITHIN = {"zai-org/CogVideoX-2b": 0.16, "zai-org/CogVideoX-5b": 0.12}


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.yaml")), ids=lambda path: path.stem)
def test_published_facts_count_to_what_a_release_is_named_after(path: Path) -> None:
    facts = yaml.safe_load(path.read_text())
    blueprint = published()[facts["id"]]
    family = build(blueprint)
    assert all(parameter.is_meta for parameter in family.denoiser.parameters())
    cover = facts.get("named_parameters_cover", family.denoisers)
    covered = sum(count(getattr(family.pipeline, name)) for name in cover)
    named = float(facts["named_parameters"])
    assert covered == pytest.approx(named, rel=NAMED_WITHIN.get(blueprint.base, 0.1))
    if blueprint.base in BY_HAND:
        assert (
            sum(count(getattr(family.pipeline, name)) for name in family.denoisers) == BY_HAND[blueprint.base]
        )


def test_text_encoders_and_vaes_count_to_their_own_releases() -> None:
    wan_family = build(blueprint_of("Wan-AI/Wan2.1-T2V-1.3B-Diffusers"))
    # UMT5-XXL's encoder: an embedding of its own size; each layer q, k, v, o, gated feed-forward, positions.
    layer = 4 * 4096 * 4096 + 3 * 4096 * 10240 + 2 * 4096 + 32 * 64
    assert count(wan_family.pipeline.text_encoder) == 256384 * 4096 + 24 * layer + 4096
    modelscope = build(blueprint_of("ali-vilab/text-to-video-ms-1.7b"))
    assert count(modelscope.pipeline.vae) == 83_653_863  # Stable Diffusion's VAE


def test_every_family_but_the_miniatures_has_published_facts() -> None:
    assert {blueprint.pipeline for blueprint in published().values()} == set(FAMILIES)


@pytest.mark.parametrize("name", list(TINY))
def test_a_folders_own_facts_make_the_same_model(model_folder: Callable[[str], Path], name: str) -> None:
    folder = model_folder(name)
    on_meta, loaded = build(blueprint_of(str(folder))), load_family(folder, torch.device("cpu"))
    for part in (*loaded.denoisers, "vae", *loaded.text_encoders):
        ours = {k: tuple(v.shape) for k, v in getattr(on_meta.pipeline, part).state_dict().items()}
        theirs = {k: tuple(v.shape) for k, v in getattr(loaded.pipeline, part).state_dict().items()}
        assert ours == theirs, part
    assert on_meta.latent_shape(TINY[name].geometry) == loaded.latent_shape(TINY[name].geometry)
    assert on_meta.embedding_shape == loaded.embedding_shape
    assert on_meta.denoisers == loaded.denoisers
    latents = torch.empty(1, *on_meta.latent_shape(TINY[name].geometry), device="meta")
    assert on_meta.decode(latents).shape == loaded.decode(torch.zeros(latents.shape)).shape


def test_half_precision_takes_the_types_that_loading_takes(model_folder: Callable[[str], Path]) -> None:
    folder = model_folder("wan-2.1")
    on_meta, loaded = (
        build(blueprint_of(str(folder)), "half"),
        load_family(folder, torch.device("cpu"), "half"),
    )
    for part in ("transformer", "vae", "text_encoder"):
        ours = {k: v.dtype for k, v in getattr(on_meta.pipeline, part).named_parameters()}
        assert ours == {k: v.dtype for k, v in getattr(loaded.pipeline, part).named_parameters()}


def test_a_mirror_is_read_from_the_store_unless_its_name_is_a_releases(
    store: Store, model_folder: Callable[[str], Path]
) -> None:
    storage.upload_dir(model_folder("ltx"), "s3://bucket/models/mine")
    assert blueprint_of("s3://bucket/models/mine").parts["transformer"].config["num_layers"] == 2
    named = blueprint_of("s3://bucket/models/ltx-video/")  # nothing there: its facts are known
    assert named.parts["transformer"].config["num_layers"] == 28


def test_bases_that_are_nowhere_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        InputError, match=r"'somebody/model': .*the hub cannot serve it.*; known without the hub: .*Wan"
    ):
        blueprint_of("somebody/model")
    with pytest.raises(InputError, match=r"no such folder; allowed are a folder.*Lightricks/LTX-Video"):
        blueprint_of("no/such/folder")
    with pytest.raises(InputError, match=r"model_index.json: missing or not JSON"):
        blueprint_of(str(tmp_path))


def test_the_hub_is_asked_for_configurations_only(
    monkeypatch: pytest.MonkeyPatch, model_folder: Callable[[str], Path]
) -> None:
    asked: list[str] = []

    def serve(base: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(model_folder("ltx"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", serve)
    assert blueprint_of("somebody/model", "v1").pipeline == "LTXPipeline"
    assert asked and all(name.endswith(".json") for name in asked)
