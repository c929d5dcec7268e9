"""Draws clips from a text-to-video model: one seed per clip, so that no clip depends on its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.generator.families.base import ModelFamily
from components.runtime.errors import InputError
from components.video.clip import ClipFormat


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int, int], device: torch.device) -> Tensor:
    """Return standard normal latents (B, C, T, h, w), row i drawn from `seeds[i]` alone.

    Drawn on the host, so that they are the same on every device.
    """
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(device)


@torch.no_grad()
def sample_latents(
    family: ModelFamily,
    embeddings: Tensor,
    unconditional: Tensor,
    seeds: Sequence[int],
    geometry: ClipFormat,
    *,
    steps: int,
    guidance: float,
) -> Tensor:
    """Return clean latents, float32 (B, C, T, h, w): a clip per row of `embeddings` (B, L, D) and per seed.

    Args:
        unconditional: embeddings (1, L, D) of the empty prompt; used when `guidance` is not 1.
        steps: denoising steps, >= 1.
        guidance: classifier-free guidance scale (arXiv 2207.12598), >= 1; 1 means none, at half the cost.
            A guidance-distilled network takes the scale as an input, at half the cost too.
    """
    family.set_conditioning(geometry.fps, guidance)
    shape = family.latent_shape(geometry)
    latents = initial_noise(seeds, shape, family.device)
    scheduler = family.sampling_scheduler()
    family.set_timesteps(scheduler, steps, shape)
    latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    guided = guidance != 1.0 and not family.guidance_distilled
    if guided:
        embeddings = torch.cat([embeddings, unconditional.expand(len(embeddings), *unconditional.shape[1:])])
    for timestep in scheduler.timesteps:
        batch = torch.cat([latents, latents]) if guided else latents
        time = timestep.expand(len(batch))
        prediction = family.predict(batch, time, embeddings)
        if guided:
            conditional, free = prediction.chunk(2)
            prediction = free + guidance * (conditional - free)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
    return latents.float()


def require_finite(latents: Tensor) -> None:
    """Refuse latents that are not finite: a VAE would silently decode them to clips of one colour.

    Raises:
        InputError: one is not finite.
    """
    if not torch.isfinite(latents).all():
        raise InputError(
            "the model drew latents that are not finite; check generator.sampling (guidance, "
            "precision, shift) and the weights"
        )
