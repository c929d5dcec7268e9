"""CogVideoX 2B, 5B and 1.5 text-to-video: v-prediction, a transformer over text and video tokens together."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from torch import Tensor

from components.generator.families.base import MemoryHints, ModelFamily
from components.generator.families.noise_process import DiscreteDiffusion
from components.runtime.errors import InputError
from components.video.clip import ClipFormat


class CogVideoX(ModelFamily):
    """`CogVideoXPipeline` with sinusoidal positions (2B), rotary ones (5B) or patches 2 frames deep (1.5).

    CogVideoX 1.5 needs an even number of latent frames and its VAE makes an odd one, so its latents carry one
    more in front: a copy of the first in `encode`, dropped by `decode` as the pipeline does.
    """

    pipeline_class = "CogVideoXPipeline"

    # One clip at a time, whatever its size: the 2B's decoder takes about 18 GB for a clip of 480 x 720.
    hints = MemoryHints(decode_pixels=1)

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
        self.noise_process = DiscreteDiffusion(self.sampling_scheduler())
        self.padding = 1 if patch_t == 2 else 0
        self._rotary: dict[tuple[int, int, int, torch.device], tuple[Tensor, Tensor]] = {}

    def sampling_scheduler(self) -> Any:
        # The 5B's DPM scheduler draws noise at every step; DDIM, deterministic with eta 0, shares its config.
        return CogVideoXDDIMScheduler.from_config(self.pipeline.scheduler.config)

    @property
    def embedding_shape(self) -> tuple[int, int]:
        config = self.denoiser.config
        return config.max_text_seq_length, config.text_embed_dim

    @property
    def patch(self) -> tuple[int, int, int]:
        return 1, self.denoiser.config.patch_size, self.denoiser.config.patch_size

    def latent_shape(self, geometry: ClipFormat) -> tuple[int, int, int, int]:
        channels, frames, rows, columns = super().latent_shape(geometry)
        config, space = self.denoiser.config, self.compression[1]
        for name, latents, largest in (
            ("height", rows, config.sample_height),
            ("width", columns, config.sample_width),
        ):
            if config.patch_size_t is not None and latents > largest:
                limit = f"this model has positions for at most {largest * space} pixels"
                raise InputError(f"{name} = {latents * space}: {limit}")
        return channels, frames + self.padding, rows, columns

    def check_frames(self, frames: int, period: int | None = None) -> None:
        # The decoder sets the first frame apart only when the count of latent frames is odd: with time = 4,
        # 2k + 1 of them are 8k + 1 frames and 2k are 8k. Any other clip comes back with another count.
        deep, period = self.denoiser.config.patch_size_t is not None, 2 * self.compression[0]
        if frames < 1 or frames % period not in ((1,) if deep else (0, 1)):
            allowed = f"{period}k + 1" if deep else f"{period}k or {period}k + 1"
            raise InputError(f"num_frames = {frames}: this model makes {allowed} frames")

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
        positions = self._positions(latents)
        return self.denoise(latents.transpose(1, 2), time, embeddings, image_rotary_emb=positions).transpose(
            1, 2
        )

    # The VAE's `invert_scale_latents` is about the conditioning image of image-to-video, not these.

    def scaled(self, raw: Tensor) -> Tensor:
        return super().scaled(torch.cat([raw[:, :, :1]] * self.padding + [raw], dim=2))

    def unscaled(self, latents: Tensor) -> Tensor:
        return super().unscaled(latents[:, :, self.padding :])
