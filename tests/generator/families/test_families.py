"""What a family refuses to be built on, how it encodes prompts, and what its network answers to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from components.generator.families import FAMILIES, ModelFamily
from components.generator.families.cogvideox import CogVideoX
from components.generator.families.wan import Wan
from components.runtime.errors import InputError
from components.video.clip import ClipFormat
from tests.generator.tiny import TINY

Loader = Callable[[str], ModelFamily]


def test_the_pipeline_is_frozen(family: ModelFamily) -> None:
    texts = [getattr(family.pipeline, name) for name in family.text_encoders]
    for module in (family.denoiser, family.pipeline.vae, *texts):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def their_embeddings(family: ModelFamily, prompts: list[str]) -> list[Tensor]:
    """What the pipeline makes of prompts: embeddings, and where it makes them mask and pooled embedding."""
    pipeline, name = family.pipeline, family.pipeline_class
    with torch.no_grad():
        if name == "TextToVideoSDPipeline":
            return [pipeline.encode_prompt(prompts, "cpu", 1, False)[0]]
        if name == "HunyuanVideoPipeline":
            text, pooled, mask = pipeline.encode_prompt(prompts)
            return [text, mask, pooled]
        made = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=16)
        return list(made[:2]) if name == "LTXPipeline" else [made[0]]


def test_prompt_embeddings_are_the_pipelines_own(family: ModelFamily) -> None:
    prompts = ["a red circle moves left", "", "a"]
    embeddings = family.encode_prompts(prompts)
    assert tuple(embeddings.shape) == (3, *family.embedding_shape)
    text, *rest = their_embeddings(family, prompts)
    rows, columns = text.shape[1:]
    torch.testing.assert_close(embeddings[:, :rows, :columns], text, atol=1e-6, rtol=0)
    if rest:
        assert torch.equal(embeddings[:, :rows, columns], rest[0].float())
        assert rest[0].float().mean() not in (0, 1)
    if len(rest) > 1:
        torch.testing.assert_close(embeddings[:, rows, : rest[1].shape[1]], rest[1], atol=1e-6, rtol=0)
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-2


def test_a_prompts_embedding_does_not_depend_on_its_batch(family: ModelFamily) -> None:
    prompts = ["a red circle moves left", "", "a"]
    together = family.encode_prompts(prompts)
    alone = torch.cat([family.encode_prompts([prompt]) for prompt in prompts])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_network_answers_to_latents_time_and_prompt(family: ModelFamily, geometry: ClipFormat) -> None:
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


def test_wan_refuses_two_transformers_without_a_boundary(load_family: Loader) -> None:
    pipeline: Any = load_family("wan-2.2-a14b").pipeline
    pipeline.register_to_config(boundary_ratio=None)
    with pytest.raises(InputError, match="boundary_ratio = None with a second transformer"):
        Wan(pipeline)


@torch.no_grad()
def test_each_of_wans_experts_answers_for_its_times(load_family: Loader) -> None:
    family = load_family("wan-2.2-a14b")
    pipeline: Any = family.pipeline
    latents = torch.randn(4, *family.latent_shape(TINY["wan-2.2-a14b"].geometry))
    text = family.encode_prompts(["a red circle"] * 4)
    time = torch.tensor([999.0, 875.0, 874.0, 1.0])  # the boundary is at 0.875 of 1000, the high one's
    mixed = family.predict(latents, time, text)
    for row, expert in enumerate((*[pipeline.transformer] * 2, *[pipeline.transformer_2] * 2)):
        here = slice(row, row + 1)
        alone = expert(latents[here], time[here], text[here], return_dict=False)[0]
        torch.testing.assert_close(mixed[here], alone, atol=1e-5, rtol=0)
    other = pipeline.transformer(latents[3:], time[3:], text[3:], return_dict=False)[0]
    assert (other - mixed[3:]).abs().max() > 1e-2


@torch.no_grad()
def test_one_time_for_a_clip_is_ti2vs_time_for_each_token(load_family: Loader) -> None:
    family = load_family("wan-2.2-5b")
    shape = family.latent_shape(TINY["wan-2.2-5b"].geometry)
    latents, text = torch.randn(2, *shape), family.encode_prompts(["a red circle", "a"])
    tokens = shape[1] * shape[2] * shape[3] // 4
    each = torch.tensor([[300.0], [800.0]]).expand(2, tokens)
    per_token = family.denoiser(latents, each, text, return_dict=False)[0]
    torch.testing.assert_close(family.predict(latents, each[:, 0], text), per_token, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("name", "changed"), [("ltx", {"fps": 12.0}), ("hunyuan-video", {"guidance": 9.0})])
def test_what_a_network_is_told_reaches_it(load_family: Loader, name: str, changed: dict[str, float]) -> None:
    family = load_family(name)
    latents = torch.randn(1, *family.latent_shape(TINY[name].geometry))
    text = family.encode_prompts(["a red circle"])
    made = []
    for told in ({"fps": 24.0, "guidance": 3.0}, {"fps": 24.0, "guidance": 3.0, **changed}):
        family.set_conditioning(**told)
        made.append(family.predict(latents, torch.tensor([500.0]), text))
    assert (made[0] - made[1]).abs().max() > 1e-4


def test_hunyuan_video_without_the_embedding_is_guided_by_two_passes(load_family: Loader) -> None:
    assert load_family("hunyuan-video").guidance_distilled
    assert not load_family("hunyuan-video-undistilled").guidance_distilled


def test_ltx_refuses_a_single_step_that_its_schedule_cannot_make(load_family: Loader) -> None:
    family = load_family("ltx")
    with pytest.raises(InputError, match="steps = 1: this model's schedule needs at least 2"):
        family.set_timesteps(family.sampling_scheduler(), 1, (8, 2, 2, 2))


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("ltx", {"patch_size": 2}, "patch_size, patch_size_t = 2, 1: 1, 1 is allowed"),
        (
            "hunyuan-video",
            {"pooled_projection_dim": 64},
            "pooled_projection_dim = 64: at most text_embed_dim",
        ),
    ],
)
def test_networks_that_a_family_cannot_call_are_refused(
    load_family: Loader, name: str, config: dict[str, int], message: str
) -> None:
    pipeline: Any = load_family(name).pipeline
    pipeline.transformer.register_to_config(**config)
    with pytest.raises(InputError, match=message):
        FAMILIES[type(pipeline).__name__](pipeline)


def test_modelscope_samples_by_ddim_whatever_scheduler_it_carries(load_family: Loader) -> None:
    pipeline: Any = load_family("modelscope").pipeline
    betas = pipeline.scheduler.alphas_cumprod
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    family = FAMILIES["TextToVideoSDPipeline"](pipeline)
    scheduler = family.sampling_scheduler()
    assert type(scheduler) is DDIMScheduler and not scheduler.config.clip_sample
    assert torch.equal(scheduler.alphas_cumprod, betas)
    pipeline.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(InputError, match="scheduler: prediction_type 'sample'"):
        FAMILIES["TextToVideoSDPipeline"](pipeline)


def test_every_file_of_the_folder_is_found(repository: Path) -> None:
    folder = repository / "components" / "generator" / "families"
    apart = {"__init__", "base", "noise_process"}
    defining = {Path(inspect.getfile(family)).stem for family in FAMILIES.values()}
    assert defining == {path.stem for path in folder.glob("*.py")} - apart
    assert all(getattr(diffusers, name).__name__ == name for name in FAMILIES)
