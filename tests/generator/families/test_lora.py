"""LoRA adapters on each family: where they sit, that off is off, and that diffusers loads what was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from peft import LoraConfig
from torch import Tensor

from components.generator.families import FAMILIES, ModelFamily
from components.generator.families.modelscope import make_adaptable
from components.runtime.errors import InputError
from components.video.clip import ClipFormat

Loader = Callable[[str], ModelFamily]


def predict(family: ModelFamily, geometry: ClipFormat) -> Tensor:
    noise = torch.randn(2, *family.latent_shape(geometry), generator=torch.Generator().manual_seed(1))
    embeddings = family.encode_prompts(["a red circle moves left", "a blue square moves up"])
    return family.predict(noise, torch.tensor([900, 100]), embeddings)


def adapt(family: ModelFamily) -> None:
    """Add an adapter "policy" whose product is not zero and whose scale, alpha / rank = 4, is not one."""
    config = LoraConfig(r=2, lora_alpha=8, target_modules=list(family.lora_targets))
    torch.manual_seed(1)
    family.denoiser.add_adapter(config, adapter_name="policy")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in family.denoiser.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def test_every_target_names_a_layer_of_every_block(family: ModelFamily) -> None:
    """Blocks, told apart by their repeated class, hold each target, but for one outside them."""
    names = [name for name, _ in family.denoiser.named_modules()]
    attentions = [name.removesuffix(".to_q") for name in names if name.endswith(".to_q")]
    assert len(attentions) >= 2
    for target in family.lora_targets:
        found = [name for name in names if name.endswith(f".{target}") or name == target]
        assert found, target
    for attention in attentions:
        for target in ("to_q", "to_k", "to_v"):
            assert f"{attention}.{target}" in names


@torch.no_grad()
def test_a_switched_off_adapter_is_the_base_to_the_bit(
    tiny: str, load_family: Loader, geometry: ClipFormat
) -> None:
    family = load_family(tiny)
    base = predict(family, geometry)
    adapt(family)
    adapted = predict(family, geometry)
    assert (adapted - base).abs().max() > 1e-3
    family.denoiser.disable_adapters()
    assert torch.equal(predict(family, geometry), base)
    family.denoiser.enable_adapters()
    assert torch.equal(predict(family, geometry), adapted)


def test_only_the_adapter_is_trained(tiny: str, load_family: Loader, geometry: ClipFormat) -> None:
    family = load_family(tiny)
    adapt(family)
    predict(family, geometry).square().mean().backward()
    for name, parameter in family.denoiser.named_parameters():
        if "lora_" in name:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None and not parameter.requires_grad, name


@torch.no_grad()
def test_diffusers_loads_the_saved_adapter(
    tiny: str, load_family: Loader, geometry: ClipFormat, tmp_path: Path
) -> None:
    family = load_family(tiny)
    adapt(family)
    family.save_lora(tmp_path, "policy")
    experts = ["transformer_2"] if len(family.denoisers) == 2 else []
    assert sorted(file.name for file in tmp_path.iterdir()) == [LORA_WEIGHT_NAME_SAFE, *experts]
    pipeline: Any = DiffusionPipeline.from_pretrained(family.pipeline.config._name_or_path)
    if family.pipeline_class == "TextToVideoSDPipeline":
        make_adaptable(pipeline.unet)
    pipeline.load_lora_weights(tmp_path)
    if experts:
        pipeline.load_lora_weights(tmp_path / experts[0], load_into_transformer_2=True)
    fresh = FAMILIES[family.pipeline_class](pipeline)
    ours = load_family(tiny)
    ours.load_lora(tmp_path)
    for loaded in (fresh, ours):
        # Not to the bit: where weights lie in memory can change the order of a sum.
        torch.testing.assert_close(predict(loaded, geometry), predict(family, geometry), atol=1e-5, rtol=0)


def test_a_lora_that_is_not_there_is_one_clear_line(load_family: Loader, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}: the LoRA cannot be loaded") as caught:
        load_family("ltx").load_lora(tmp_path)
    assert "\n" not in str(caught.value)


def test_equal_adapters_are_equal_files(load_family: Loader, tmp_path: Path) -> None:
    for place in ("one", "other"):
        family = load_family("wan-2.2-a14b")
        adapt(family)
        family.save_lora(tmp_path / place, "policy")
    for name in (LORA_WEIGHT_NAME_SAFE, f"transformer_2/{LORA_WEIGHT_NAME_SAFE}"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
