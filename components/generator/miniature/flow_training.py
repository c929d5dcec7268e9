"""Trains the miniature's transformer and text encoder together by flow matching on the VAE's latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.generator.miniature.architecture import MAX_TOKENS
from components.generator.miniature.optimise import optimise
from components.generator.miniature.vae_training import moments, to_model_range
from components.generator.params import MiniatureParams
from components.runtime.compute.seeds import derive

#: Share of captions replaced by the empty one, so that classifier-free guidance has its unconditional branch.
CAPTION_DROPOUT = 0.1


@torch.no_grad()
def encode_footage(vae: Any, footage: Tensor, device: torch.device) -> Tensor:
    """Return normalised latents (N, C, T, h, w), float16 on the device, of uint8 clips (N, T, 3, H, W).

    `vae` is an `AutoencoderKLWan`.
    """
    mean = torch.tensor(vae.config.latents_mean, device=device).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std, device=device).view(1, -1, 1, 1, 1)
    parts = [
        ((moments(vae, to_model_range(part.to(device)))[0] - mean) / std).half()
        for part in footage.split(256)
    ]
    return torch.cat(parts)


def encode_text(text_encoder: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return text embeddings (B, 16, D) as `WanPipeline` makes them: zero after the end of each caption."""
    hidden = text_encoder(tokens, mask).last_hidden_state
    return hidden * mask[..., None]


def train_flow(
    pipeline: Any,
    footage: Tensor,
    captions: Sequence[str],
    recipe: MiniatureParams,
    seed: int,
    device: torch.device,
    checkpoints: Path,
) -> None:
    """Train `transformer` and `text_encoder` of a `WanPipeline` in place.

    Flow matching (Lipman et al. 2023, arXiv 2210.02747; the parametrisation of Wan): x_t = (1 - t) x + t eps,
    target eps - x, mean squared error, t logit-normal (Esser et al. 2024, arXiv 2403.03206) with a tenth
    drawn uniformly so that the ends are seen.
    """
    vae = pipeline.vae.to(device).eval()
    latents = encode_footage(vae, footage, device)
    both = nn.ModuleDict({"transformer": pipeline.transformer, "text_encoder": pipeline.text_encoder})
    both.to(device).train()
    if device.type == "cuda":
        # The network is so small that launching its kernels takes longer than running them.
        pipeline.transformer.compile()
    unique = sorted(set(captions))
    numbers = {caption: number for number, caption in enumerate(unique)}
    encoded = pipeline.tokenizer(
        [*unique, ""], padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    tokens, masks = encoded.input_ids.to(device), encoded.attention_mask.to(device)
    caption_of = torch.tensor([numbers[caption] for caption in captions], device=device)
    batch = recipe.flow_batch

    def loss_at(step: int) -> Tensor:
        # Drawn on the training device: host draws of this size would take longer than the network.
        draws = torch.Generator(device).manual_seed(derive(seed, "flow batch", step))
        indices = torch.randint(len(latents), (batch,), generator=draws, device=device)
        clean = latents[indices].float()
        chosen = caption_of[indices].clone()
        chosen[torch.rand(batch, generator=draws, device=device) < CAPTION_DROPOUT] = len(unique)
        text = encode_text(pipeline.text_encoder, tokens[chosen], masks[chosen])
        time = torch.sigmoid(torch.randn(batch, generator=draws, device=device))
        uniform = torch.rand(batch, generator=draws, device=device)
        time = torch.where(torch.rand(batch, generator=draws, device=device) < 0.1, uniform, time)
        noise = torch.randn(clean.shape, generator=draws, device=device)
        at = time.view(-1, 1, 1, 1, 1)
        noisy = (1.0 - at) * clean + at * noise
        predicted = pipeline.transformer(noisy, time * 1000.0, text, return_dict=False)[0]
        return (predicted - (noise - clean)).square().mean()

    optimise(both, loss_at, "flow", recipe.flow_steps, recipe.flow_learning_rate, checkpoints)
    both.eval()
