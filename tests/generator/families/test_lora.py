"""LoRA adapters on each family: where they sit, that off is off, and that diffusers loads what was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from components.generator.families import Geometry, ModelFamily

Loader = Callable[[str], ModelFamily]


def predict(family: ModelFamily, geometry: Geometry) -> Tensor:
    noise = torch.randn(2, *family.latent_shape(geometry), generator=torch.Generator().manual_seed(1))
    embeddings = family.encode_prompts(["a red circle moves left", "a blue square moves up"])
    return family.predict(noise, torch.tensor([900, 100]), embeddings)


def adapt(family: ModelFamily) -> None:
    """Add an adapter "policy" whose product is not zero and whose scale, alpha / rank = 4, is not one."""
    config = LoraConfig(r=2, lora_alpha=8, target_modules=list(family.lora_targets))
    family.denoiser.add_adapter(config, adapter_name="policy")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in family.denoiser.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def test_every_target_names_a_layer_of_every_block(family: ModelFamily) -> None:
    names = [name for name, _ in family.denoiser.named_modules()]
    blocks = family.denoiser.config.num_layers
    for target in family.lora_targets:
        found = [name for name in names if name == target or name.endswith(f".{target}")]
        assert len(found) >= (1 if target == "proj_out" else blocks), target


@torch.no_grad()
def test_a_switched_off_adapter_is_the_base_to_the_bit(
    tiny: str, load_family: Loader, geometry: Geometry
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


def test_only_the_adapter_is_trained(tiny: str, load_family: Loader, geometry: Geometry) -> None:
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
    tiny: str, load_family: Loader, geometry: Geometry, tmp_path: Path
) -> None:
    family = load_family(tiny)
    adapt(family)
    type(family.pipeline).save_lora_weights(
        tmp_path,
        transformer_lora_layers=get_peft_model_state_dict(family.denoiser, adapter_name="policy"),
        transformer_lora_adapter_metadata=family.denoiser.peft_config["policy"].to_dict(),
    )
    assert [file.name for file in tmp_path.iterdir()] == [LORA_WEIGHT_NAME_SAFE]
    fresh = load_family(tiny)
    fresh.pipeline.load_lora_weights(tmp_path)
    assert torch.equal(predict(fresh, geometry), predict(family, geometry))
