"""What a family refuses to be built on, how it encodes prompts, and what its network answers to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from components.generator.families import Geometry, ModelFamily
from components.generator.families.cogvideox import CogVideoX
from components.generator.families.wan import Wan
from components.runtime.errors import InputError

Loader = Callable[[str], ModelFamily]


def test_the_pipeline_is_frozen(family: ModelFamily) -> None:
    for module in (family.denoiser, family.pipeline.vae, family.pipeline.text_encoder):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_prompt_embeddings_are_the_pipelines_own(family: ModelFamily) -> None:
    prompts = ["a red circle moves left", "", "a"]
    embeddings = family.encode_prompts(prompts)
    theirs, unconditional = family.pipeline.encode_prompt(prompts, max_sequence_length=16)
    torch.testing.assert_close(embeddings, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(embeddings[1], unconditional[0], atol=1e-5, rtol=0)
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-2


def test_a_prompts_embedding_does_not_depend_on_its_batch(family: ModelFamily) -> None:
    prompts = ["a red circle moves left", "", "a"]
    together = family.encode_prompts(prompts)
    alone = torch.cat([family.encode_prompts([prompt]) for prompt in prompts])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_network_answers_to_latents_time_and_prompt(family: ModelFamily, geometry: Geometry) -> None:
    latents = torch.randn(1, *family.latent_shape(geometry), generator=torch.Generator().manual_seed(1))
    embeddings = family.encode_prompts(["a red circle moves left", "a blue square moves up"])
    base = family.predict(latents, torch.tensor([500]), embeddings[:1])
    assert base.shape == latents.shape
    assert base.dtype == torch.float32
    for other in (
        family.predict(latents.flip(-1), torch.tensor([500]), embeddings[:1]),
        family.predict(latents, torch.tensor([100]), embeddings[:1]),
        family.predict(latents, torch.tensor([500]), embeddings[1:]),
    ):
        assert (other - base).abs().max() > 1e-4


def test_cogvideox_samples_without_noise_whatever_scheduler_it_carries(load_family: Loader) -> None:
    family = load_family("cogvideox-5b")
    assert type(family.pipeline.scheduler).__name__ == "CogVideoXDPMScheduler"
    scheduler = family.sampling_scheduler()
    assert type(scheduler).__name__ == "CogVideoXDDIMScheduler"
    assert scheduler.config.snr_shift_scale == 1.0
    assert torch.equal(scheduler.alphas_cumprod, family.pipeline.scheduler.alphas_cumprod)


def test_cogvideox_refuses_a_scheduler_with_other_noise_levels(load_family: Loader) -> None:
    pipeline: Any = load_family("cogvideox-2b").pipeline
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(InputError, match="scheduler DDIMScheduler: CogVideoXDDIMScheduler or"):
        CogVideoX(pipeline)


def test_cogvideox_refuses_an_unknown_patch_depth(load_family: Loader) -> None:
    pipeline: Any = load_family("cogvideox-1.5").pipeline
    pipeline.transformer.register_to_config(patch_size_t=3)
    with pytest.raises(InputError, match="patch_size_t = 3: null, 1 or 2 is allowed"):
        CogVideoX(pipeline)


def test_wan_refuses_two_transformers(load_family: Loader) -> None:
    pipeline: Any = load_family("wan-2.1").pipeline
    pipeline.transformer_2 = pipeline.transformer
    with pytest.raises(InputError, match="two transformers"):
        Wan(pipeline)
