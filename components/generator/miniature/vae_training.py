"""Trains the miniature's VAE.

`vae` is an `AutoencoderKLWan` throughout; it is typed `Any` because diffusers hides the module's
attributes from type checkers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify
from torch import Tensor

from components.generator.miniature.optimise import optimise
from components.generator.params import MiniatureParams
from components.runtime.compute.seeds import derive

KL_WEIGHT = 1e-5
GRADIENT_WEIGHT = 0.5
SQUARED_WEIGHT = 2.0


def to_model_range(frames: Tensor) -> Tensor:
    """uint8 (B, T, 3, H, W) in 0..255 -> float32 (B, 3, T, H, W) in -1..1, the layout Wan's VAE works in."""
    return frames.float().div(127.5).sub(1.0).transpose(1, 2)


def moments(vae: Any, video: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance, (B, C, T, h, w) each, of videos (B, 3, T, H, W).

    The pass is un-chunked (equal to the chunked pass here).
    """
    mean, log_variance = vae.quant_conv(vae.encoder(patchify(video, vae.config.patch_size))).chunk(2, dim=1)
    return mean, log_variance.clamp(-30.0, 20.0)


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Return videos (B, 3, T, H, W), unclamped, of latents (B, C, T, h, w), un-chunked."""
    return unpatchify(vae.decoder(vae.post_quant_conv(latents)), vae.config.patch_size)


def pixel_loss(reconstruction: Tensor, video: Tensor) -> Tensor:
    """L1 + 2 MSE + 0.5 L1 of the spatial gradients, each a mean over all elements."""
    error = reconstruction - video
    gradient = (error[..., 1:, :] - error[..., :-1, :]).abs().mean() + (
        error[..., 1:] - error[..., :-1]
    ).abs().mean()
    return error.abs().mean() + SQUARED_WEIGHT * error.square().mean() + GRADIENT_WEIGHT * gradient


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, var) || N(0, 1)), summed over channels, mean over the rest."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=1).mean()


def train_vae(
    vae: Any, footage: Tensor, recipe: MiniatureParams, seed: int, device: torch.device, checkpoints: Path
) -> None:
    """Train the VAE in place on uint8 clips (N, T, 3, H, W), then set its latents' statistics.

    These are the latents' mean and standard deviation per channel. Clips are drawn by step from the seed, so
    a resumed run sees the same batches.
    """
    vae.to(device).train()

    def loss_at(step: int) -> Tensor:
        draws = torch.Generator().manual_seed(derive(seed, "vae batch", step))
        indices = torch.randint(len(footage), (recipe.vae_batch,), generator=draws)
        video = to_model_range(footage[indices].to(device, non_blocking=True))
        mean, log_variance = moments(vae, video)
        noise = torch.randn(mean.shape, generator=draws).to(device)
        reconstruction = decode(vae, mean + (0.5 * log_variance).exp() * noise)
        return pixel_loss(reconstruction, video) + KL_WEIGHT * divergence(mean, log_variance)

    optimise(vae, loss_at, "vae", recipe.vae_steps, recipe.vae_learning_rate, checkpoints)
    vae.eval()
    set_latent_statistics(vae, footage[:512], device)


@torch.no_grad()
def set_latent_statistics(vae: Any, footage: Tensor, device: torch.device) -> None:
    """Write the per-channel mean and standard deviation of the latents of `footage` into the VAE's config.

    This is Wan's convention.
    """
    means = torch.cat([moments(vae, to_model_range(part.to(device)))[0] for part in footage.split(64)])
    vae.register_to_config(
        latents_mean=[round(v, 5) for v in means.mean(dim=(0, 2, 3, 4)).tolist()],
        latents_std=[round(v, 5) for v in means.std(dim=(0, 2, 3, 4)).tolist()],
    )
