"""Wan 2.1 and 2.2 text-to-video: a flow-matching transformer over a causal 3D VAE. The miniature is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from components.generator.families.base import Geometry, ModelFamily
from components.generator.families.processes import FlowMatching
from components.runtime.errors import InputError


class Wan(ModelFamily):
    """``WanPipeline`` with one transformer (Wan 2.1 1.3B and 14B, Wan 2.2 TI2V-5B, the miniature)."""

    pipeline_class: ClassVar[str] = "WanPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "ffn.net.0.proj",
        "ffn.net.2",
        "proj_out",
    )

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        if getattr(pipeline, "transformer_2", None) is not None:
            raise InputError("Wan 2.2 A14B has two transformers; a base with one transformer is allowed")
        self.process = FlowMatching(float(pipeline.scheduler.config.num_train_timesteps))
        # Released Wan models are trained at 512 tokens; a small tokenizer says its own length.
        self.max_tokens = min(512, int(pipeline.tokenizer.model_max_length))

    @property
    def denoiser(self) -> Any:
        return self.pipeline.transformer

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        embeddings, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_tokens,
            device=self.device,
        )
        return embeddings.to(self.denoiser.dtype)

    def latent_shape(self, geometry: Geometry) -> tuple[int, int, int, int]:
        time, space = self.pipeline.vae_scale_factor_temporal, self.pipeline.vae_scale_factor_spatial
        patch_t, patch_h, patch_w = self.denoiser.config.patch_size
        frames = (geometry.num_frames - 1) // time + 1
        height, width = geometry.height // space, geometry.width // space
        # The VAE encodes the first frame and then four at a time; it loses a shorter rest.
        if geometry.num_frames < 1 or (geometry.num_frames - 1) % max(time, 4) or frames % patch_t:
            raise InputError(
                f"num_frames = {geometry.num_frames}: this model makes {max(time, 4)}k + 1 frames"
                f" in multiples of {patch_t} latent frames"
            )
        for name, pixels, patch in (("height", geometry.height, patch_h), ("width", geometry.width, patch_w)):
            if pixels < 1 or pixels % (space * patch):
                raise InputError(f"{name} = {pixels}: this model needs a multiple of {space * patch} pixels")
        return self.denoiser.config.in_channels, frames, height, width

    def predict(self, latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        output = self.denoiser(
            hidden_states=latents.to(self.denoiser.dtype),
            timestep=time.to(latents.device),
            encoder_hidden_states=embeddings,
            return_dict=False,
        )[0]
        return output.float()

    def _statistics(self) -> tuple[Tensor, Tensor]:
        config = self.pipeline.vae.config
        mean = torch.tensor(config.latents_mean, device=self.device).view(1, -1, 1, 1, 1)
        return mean, torch.tensor(config.latents_std, device=self.device).view(1, -1, 1, 1, 1)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics()
        raw = (latents * std + mean).to(self.pipeline.vae.dtype)
        video = self.pipeline.vae.decode(raw, return_dict=False)[0].float()
        return video.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).transpose(1, 2)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        mean, std = self._statistics()
        video = frames.to(self.device).float().div(127.5).sub(1).transpose(1, 2).to(self.pipeline.vae.dtype)
        return (self.pipeline.vae.encode(video).latent_dist.mode().float() - mean) / std
