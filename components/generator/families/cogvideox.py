"""CogVideoX 2B, 5B and 1.5 text-to-video: v-prediction, a transformer over text and video tokens together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from torch import Tensor

from components.generator.families.base import Geometry, MemoryHints, ModelFamily
from components.generator.families.noise_process import DiscreteDiffusion
from components.runtime.errors import InputError


class CogVideoX(ModelFamily):
    """``CogVideoXPipeline`` with sinusoidal positions (2B), rotary ones (5B) or patches 2 frames deep (1.5).

    CogVideoX 1.5 needs an even number of latent frames and its VAE makes an odd one, so its latents carry one
    more in front: a copy of the first in ``encode``, dropped by ``decode`` as the pipeline does.
    """

    pipeline_class: ClassVar[str] = "CogVideoXPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "ff.net.0.proj",
        "ff.net.2",
    )

    # One clip at a time, whatever its size: the 2B's decoder takes about 18 GB for a clip of 480 x 720.
    hints: ClassVar[MemoryHints] = MemoryHints(decode_pixels=1)

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        scheduler, patch_t = pipeline.scheduler, self.denoiser.config.patch_size_t
        if not isinstance(scheduler, CogVideoXDDIMScheduler | CogVideoXDPMScheduler):
            # Any other class ignores snr_shift_scale, so its noise levels are not those of training.
            raise InputError(
                f"scheduler {type(scheduler).__name__}:"
                " CogVideoXDDIMScheduler or CogVideoXDPMScheduler is allowed"
            )
        if patch_t not in (None, 1, 2):
            raise InputError(f"transformer patch_size_t = {patch_t}: null, 1 or 2 is allowed")
        self.process = DiscreteDiffusion(self.sampling_scheduler())
        self.padding = 1 if patch_t == 2 else 0
        self._rotary: dict[tuple[int, int, int, torch.device], tuple[Tensor, Tensor]] = {}

    def sampling_scheduler(self) -> Any:
        # The 5B's DPM scheduler draws noise at every step; DDIM, deterministic with eta 0, shares its config.
        return CogVideoXDDIMScheduler.from_config(self.pipeline.scheduler.config)

    @property
    def embedding_shape(self) -> tuple[int, int]:
        config = self.denoiser.config
        return config.max_text_seq_length, config.text_embed_dim

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        embeddings, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.denoiser.config.max_text_seq_length,
            device=self.text_device,
        )
        return embeddings.to(self.device, self.denoiser.dtype)

    @property
    def compression(self) -> tuple[int, int]:
        return self.pipeline.vae_scale_factor_temporal, self.pipeline.vae_scale_factor_spatial

    def latent_shape(self, geometry: Geometry) -> tuple[int, int, int, int]:
        config = self.denoiser.config
        deep = config.patch_size_t is not None
        time, space = self.compression
        for name, pixels, largest in (
            ("height", geometry.height, config.sample_height * space),
            ("width", geometry.width, config.sample_width * space),
        ):
            unit = space * config.patch_size
            if pixels < 1 or pixels % unit:
                raise InputError(f"{name} = {pixels}: this model needs a multiple of {unit} pixels")
            if deep and pixels > largest:
                raise InputError(f"{name} = {pixels}: this model has positions for at most {largest} pixels")
        # The decoder sets the first frame apart only when the count of latent frames is odd: with time = 4,
        # 2k + 1 of them are 8k + 1 frames and 2k are 8k. Any other clip comes back with another count.
        period = 2 * time
        if geometry.num_frames < 1 or geometry.num_frames % period not in ((1,) if deep else (0, 1)):
            allowed = f"{period}k + 1" if deep else f"{period}k or {period}k + 1"
            raise InputError(f"num_frames = {geometry.num_frames}: this model makes {allowed} frames")
        frames = (geometry.num_frames - 1) // time + 1 + self.padding
        return config.in_channels, frames, geometry.height // space, geometry.width // space

    def _positions(self, latents: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the rotary embedding (cosine, sine) of latents (B, C, T, h, w); None for the 2B."""
        if not self.denoiser.config.use_rotary_positional_embeddings:
            return None
        frames, height, width = latents.shape[2:]
        key = (frames, height, width, latents.device)
        if key not in self._rotary:
            space = self.pipeline.vae_scale_factor_spatial
            self._rotary[key] = self.pipeline._prepare_rotary_positional_embeddings(
                height * space, width * space, frames, latents.device
            )
        return self._rotary[key]

    def predict(self, latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        output = self.denoiser(
            hidden_states=latents.transpose(1, 2).to(self.denoiser.dtype),
            encoder_hidden_states=embeddings,
            timestep=time.to(latents.device),
            image_rotary_emb=self._positions(latents),
            return_dict=False,
        )[0]
        return output.float().transpose(1, 2)

    # The VAE's ``invert_scale_latents`` is about the conditioning image of image-to-video, not these.

    def scaled(self, raw: Tensor) -> Tensor:
        padded = torch.cat([raw[:, :, :1]] * self.padding + [raw], dim=2)
        return padded * self.pipeline.vae.config.scaling_factor

    def unscaled(self, latents: Tensor) -> Tensor:
        return latents[:, :, self.padding :] / self.pipeline.vae.config.scaling_factor
