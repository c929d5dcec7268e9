"""LTX-Video text-to-video: a flow-matching transformer over a VAE of 32 x 32 pixels by 8 frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from components.generator.families.base import Geometry, ModelFamily
from components.generator.families.noise_process import FlowMatching
from components.runtime.errors import InputError


class LTXVideo(ModelFamily):
    """``LTXPipeline``. Its network is told the frames per second, and its schedule follows the clip's size.

    Embeddings carry the text's mask as their last column. A VAE of 0.9.1 and later, whose decoder takes a
    time, is given 0, as the pipeline does by default.
    """

    pipeline_class: ClassVar[str] = "LTXPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "ff.net.0.proj",
        "ff.net.2",
    )

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        config = self.denoiser.config
        if (config.patch_size, config.patch_size_t) != (1, 1):
            raise InputError(
                f"transformer patch_size, patch_size_t = {config.patch_size}, {config.patch_size_t}:"
                " 1, 1 is allowed"
            )
        self.process = FlowMatching(float(pipeline.scheduler.config.num_train_timesteps))
        self.max_tokens = min(128, int(pipeline.tokenizer.model_max_length))

    @property
    def embedding_shape(self) -> tuple[int, int]:
        return self.max_tokens, self.denoiser.config.caption_channels + 1

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        embeddings, mask, _, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_tokens,
            device=self.text_device,
        )
        packed = torch.cat([embeddings, mask.to(embeddings.dtype)[..., None]], dim=-1)
        return packed.to(self.device, self.denoiser.dtype)

    @property
    def compression(self) -> tuple[int, int]:
        pipeline = self.pipeline
        return pipeline.vae_temporal_compression_ratio, pipeline.vae_spatial_compression_ratio

    def latent_shape(self, geometry: Geometry) -> tuple[int, int, int, int]:
        time, space = self.compression
        if geometry.num_frames < 1 or (geometry.num_frames - 1) % time:
            raise InputError(f"num_frames = {geometry.num_frames}: this model makes {time}k + 1 frames")
        for name, pixels in (("height", geometry.height), ("width", geometry.width)):
            if pixels < 1 or pixels % space:
                raise InputError(f"{name} = {pixels}: this model needs a multiple of {space} pixels")
        frames = (geometry.num_frames - 1) // time + 1
        return self.denoiser.config.in_channels, frames, geometry.height // space, geometry.width // space

    def predict(self, latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        frames, height, width = latents.shape[2:]
        compressed_time, space = self.compression
        output = self.denoiser(
            hidden_states=latents.flatten(2).transpose(1, 2).to(self.denoiser.dtype),
            encoder_hidden_states=embeddings[..., :-1],
            timestep=time.to(latents.device),
            encoder_attention_mask=embeddings[..., -1],
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(compressed_time / self.fps, space, space),
            return_dict=False,
        )[0]
        return output.float().transpose(1, 2).unflatten(2, (frames, height, width))

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

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        vae = self.pipeline.vae
        mean = vae.latents_mean.to(like.device, torch.float32).view(1, -1, 1, 1, 1)
        std = vae.latents_std.to(like.device, torch.float32).view(1, -1, 1, 1, 1)
        return mean, std / vae.config.scaling_factor

    def scaled(self, raw: Tensor) -> Tensor:
        mean, std = self._statistics(raw)
        return (raw - mean) / std

    def unscaled(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return latents * std + mean

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
