"""LTX-Video text-to-video: a flow-matching transformer over a VAE of 32 x 32 pixels by 8 frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.generator.families.base import ModelFamily
from components.generator.families.noise_process import FlowMatching
from components.runtime.errors import InputError


class LTXVideo(ModelFamily):
    """`LTXPipeline`. Its network takes the frames per second, and its schedule follows the clip's size.

    Embeddings carry the text's mask as their last column. A VAE of 0.9.1 and later, whose decoder takes a
    time, is given 0, as the pipeline does by default.
    """

    pipeline_class = "LTXPipeline"

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        config = self.denoiser.config
        if (config.patch_size, config.patch_size_t) != (1, 1):
            raise InputError(
                f"transformer patch_size, patch_size_t = {config.patch_size}, {config.patch_size_t}:"
                " 1, 1 is allowed"
            )
        self.noise_process = FlowMatching(float(pipeline.scheduler.config.num_train_timesteps))
        self.max_tokens = min(128, int(pipeline.tokenizer.model_max_length))

    @property
    def embedding_shape(self) -> tuple[int, int]:
        return self.max_tokens, self.denoiser.config.caption_channels + 1

    def embed(self, prompts: list[str]) -> Tensor:
        embeddings, mask, _, _ = self.pipeline.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_tokens,
            device=self.text_device,
        )
        return torch.cat([embeddings, mask.to(embeddings.dtype)[..., None]], dim=-1)

    @property
    def compression(self) -> tuple[int, int]:
        pipeline = self.pipeline
        return pipeline.vae_temporal_compression_ratio, pipeline.vae_spatial_compression_ratio

    def predict(self, latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        frames, height, width = latents.shape[2:]
        compressed_time, space = self.compression
        tokens = self.denoise(
            latents.flatten(2).transpose(1, 2),
            time,
            embeddings[..., :-1],
            encoder_attention_mask=embeddings[..., -1],
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(compressed_time / self.fps, space, space),
        )
        return tokens.transpose(1, 2).unflatten(2, (frames, height, width))

    def set_timesteps(self, scheduler: Any, steps: int, shape: Sequence[int]) -> None:
        config = scheduler.config
        if steps == 1 and config.get("shift_terminal"):
            raise InputError("steps = 1: this model's schedule needs at least 2")
        # The shift's logarithm is a straight line through two points: (tokens, shift) at both ends.
        few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        tokens = shape[1] * shape[2] * shape[3]
        mu = low + (high - low) * (tokens - few) / (many - few)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), device=self.device, mu=mu)

    def latent_statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        vae = self.pipeline.vae
        mean, deviation = (values.to(device, torch.float32) for values in (vae.latents_mean, vae.latents_std))
        return mean, deviation / vae.config.scaling_factor

    def vae_decode(self, raw: Tensor) -> Tensor:
        vae = self.pipeline.vae
        time = torch.zeros(len(raw), device=raw.device, dtype=raw.dtype)
        devices = [raw.device] if raw.device.type == "cuda" else []
        # Some releases' decoders add noise to their features, from the global random state.
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            conditioning = time if vae.config.timestep_conditioning else None
            video: Tensor = vae.decode(raw, conditioning, return_dict=False)[0]
        return video
