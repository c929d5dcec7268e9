"""The sampler against diffusers' own pipelines, and that a clip depends on its prompt and seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from components.generator import sampling
from components.generator.families import ModelFamily
from components.generator.sampling import initial_noise, require_finite, sample_latents
from components.runtime.errors import InputError
from components.video.clip import ClipFormat
from tests.generator.theirs import call, last_of

PROMPTS = ["a red circle moves left", "a blue square moves up", "a green triangle"]
SEEDS = [11, 12, 13]


def draw(
    family: ModelFamily,
    geometry: ClipFormat,
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: float = 3.0,
    steps: int = 3,
) -> Tensor:
    return sample_latents(
        family,
        family.encode_prompts(prompts),
        family.encode_prompts([""]),
        seeds,
        geometry,
        steps=steps,
        guidance=guidance,
    )


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_equals_the_pipelines_own_call(
    family: ModelFamily, geometry: ClipFormat, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family.pipeline, "scheduler", family.sampling_scheduler())
    noise = initial_noise(SEEDS, family.latent_shape(geometry), torch.device("cpu"))
    theirs = call(family, PROMPTS, geometry, guidance=guidance, steps=3, latents=noise)
    ours = draw(family, geometry, PROMPTS, SEEDS, guidance)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours - noise).abs().max() > 0.1


def test_the_same_seeds_give_the_same_bits(family: ModelFamily, geometry: ClipFormat) -> None:
    latents = draw(family, geometry, PROMPTS, SEEDS)
    assert latents.dtype == torch.float32
    assert tuple(latents.shape) == (3, *family.latent_shape(geometry))
    assert torch.equal(latents, draw(family, geometry, PROMPTS, SEEDS))


def test_a_clip_does_not_depend_on_its_batch_or_place(family: ModelFamily, geometry: ClipFormat) -> None:
    together = draw(family, geometry, PROMPTS, SEEDS)
    backwards = draw(family, geometry, PROMPTS[::-1], SEEDS[::-1]).flip(0)
    alone = torch.cat(
        [draw(family, geometry, [prompt], [seed]) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    )
    torch.testing.assert_close(backwards, together, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_prompt_seed_and_guidance_matter(family: ModelFamily, geometry: ClipFormat) -> None:
    base = draw(family, geometry, PROMPTS[:1], SEEDS[:1])
    for other in (
        draw(family, geometry, PROMPTS[1:2], SEEDS[:1]),
        draw(family, geometry, PROMPTS[:1], SEEDS[1:2]),
        draw(family, geometry, PROMPTS[:1], SEEDS[:1], guidance=1.0),
    ):
        assert (other - base).abs().max() > 1e-4


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_no_guidance_or_being_told_it_costs_half(
    family: ModelFamily, geometry: ClipFormat, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 3 if guidance == 1.0 or family.guidance_distilled else 6
    sizes: list[int] = []
    real = family.predict

    def counted(latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        sizes.append(len(latents))
        assert len(time) == len(embeddings) == len(latents)
        return real(latents, time, embeddings)

    monkeypatch.setattr(family, "predict", counted)
    draw(family, geometry, PROMPTS, SEEDS, guidance)
    assert sizes == [rows] * 3


def test_a_perfect_network_ends_on_the_clean_latents(
    family: ModelFamily, geometry: ClipFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties process to sampler at every step: the path between noise and clean is followed exactly."""
    shape = family.latent_shape(geometry)
    noise = initial_noise(SEEDS, shape, torch.device("cpu"))
    clean = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    # UniPC names its noise levels by integers of a thousand, so its path is a thousandth off at most.
    scheduler = family.sampling_scheduler()
    exact = not type(scheduler).__name__.startswith("UniPC")
    tolerance = 1e-4 if exact else 2e-3 * float((noise - clean).abs().max())
    # ModelScope's schedule starts below full noise, so pure noise is not on the path; its own first point is.
    family.set_timesteps(scheduler, 4, shape)
    first = family.noise_process.add_noise(clean, noise, scheduler.timesteps[:1].expand(3))
    if scheduler.config.get("timestep_spacing") == "leading":
        monkeypatch.setattr(sampling, "initial_noise", lambda *_: first)
    else:
        torch.testing.assert_close(first, noise, atol=tolerance, rtol=0)

    def perfect(latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        torch.testing.assert_close(
            latents, family.noise_process.add_noise(clean, noise, time), atol=tolerance, rtol=0
        )
        return family.noise_process.target(clean, noise, time)

    monkeypatch.setattr(family, "predict", perfect)
    # Four steps divide CogVideoX's thousand timesteps; elsewhere its scheduler rounds where a step ends.
    ended = draw(family, geometry, PROMPTS, SEEDS, guidance=1.0, steps=4)
    torch.testing.assert_close(ended, last_of(family, clean, noise), atol=tolerance, rtol=0)


def test_noise_is_standard_normal_and_each_row_its_seeds_own() -> None:
    shape = (4, 5, 20, 20)
    rows = initial_noise([5, 6, 2**62], shape, torch.device("cpu"))
    assert rows.shape == (3, *shape)
    assert abs(float(rows.mean())) < 5 / rows.numel() ** 0.5
    assert abs(float(rows.std()) - 1) < 5 / (2 * rows.numel()) ** 0.5
    assert torch.equal(rows[2:], initial_noise([2**62], shape, torch.device("cpu")))
    assert not torch.equal(rows[0], rows[1])


def test_drawing_leaves_the_global_random_state_alone(family: ModelFamily, geometry: ClipFormat) -> None:
    before = torch.get_rng_state()
    draw(family, geometry, PROMPTS[:1], SEEDS[:1])
    assert torch.equal(torch.get_rng_state(), before)


def test_latents_that_are_no_numbers_are_one_clear_line() -> None:
    require_finite(torch.zeros(2, 3))
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="not finite; check generator"):
            require_finite(torch.tensor([0.0, wrong]))
