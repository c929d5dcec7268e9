"""ModelScope and Zeroscope text-to-video: an epsilon-prediction 3D UNet over an image VAE."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from diffusers.loaders import PeftAdapterMixin
from torch import Tensor

from components.generator.families.base import ModelFamily
from components.generator.families.noise_process import DiscreteDiffusion
from components.runtime.errors import InputError


def make_adaptable(unet: Any) -> None:
    """Give a `UNet3DConditionModel` the adapter methods of diffusers' other networks.

    diffusers 0.42 leaves them out, so that `load_lora_weights` of its own pipeline fails on its own UNet.
    """
    if not isinstance(unet, PeftAdapterMixin):
        unet.__class__ = type(type(unet).__name__, (type(unet), PeftAdapterMixin), {})


class ModelScope(ModelFamily):
    """`TextToVideoSDPipeline` (ModelScope text-to-video 1.7B, Zeroscope v2).

    To load a saved LoRA without this class, call `make_adaptable(pipeline.unet)` first.
    """

    pipeline_class = "TextToVideoSDPipeline"
    denoisers = ("unet",)

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        if not isinstance(pipeline.unet, UNet3DConditionModel):
            raise InputError(f"unet {type(pipeline.unet).__name__}: UNet3DConditionModel is allowed")
        make_adaptable(pipeline.unet)
        try:
            self.noise_process = DiscreteDiffusion(self.sampling_scheduler())
        except ValueError as error:
            raise InputError(f"scheduler: {error}") from error

    def sampling_scheduler(self) -> Any:
        # Whatever sampler a release carries, its betas are those of training; latents are never clipped.
        return DDIMScheduler.from_config(self.pipeline.scheduler.config, clip_sample=False)

    @property
    def embedding_shape(self) -> tuple[int, int]:
        return int(self.pipeline.tokenizer.model_max_length), self.denoiser.config.cross_attention_dim

    def embed(self, prompts: list[str]) -> Tensor:
        embeddings: Tensor = self.pipeline.encode_prompt(
            prompts, self.text_device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )[0]
        return embeddings

    @property
    def compression(self) -> tuple[int, int]:
        return 1, self.pipeline.vae_scale_factor

    def predict(self, latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        output = self.denoiser(
            latents.to(self.denoiser.dtype),
            time.to(latents.device),
            encoder_hidden_states=embeddings,
            return_dict=False,
        )[0]
        return output.float()

    def vae_encode(self, video: Tensor) -> Tensor:
        images = video.transpose(1, 2).flatten(0, 1)
        chunk = max(1, self.hints.decode_pixels // images[0, 0].numel())
        modes = [self.pipeline.vae.encode(part).latent_dist.mode() for part in images.split(chunk)]
        return torch.cat(modes).unflatten(0, (len(video), -1)).transpose(1, 2)

    def vae_decode(self, raw: Tensor) -> Tensor:
        images = raw.transpose(1, 2).flatten(0, 1)
        chunk = max(1, self.hints.decode_pixels // (images[0, 0].numel() * self.compression[1] ** 2))
        frames = [self.pipeline.vae.decode(part, return_dict=False)[0] for part in images.split(chunk)]
        return torch.cat(frames).unflatten(0, (len(raw), -1)).transpose(1, 2)
