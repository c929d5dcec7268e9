"""HunyuanVideo text-to-video: a guidance-distilled flow-matching transformer with a Llama as text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from components.generator.families.base import MemoryHints, ModelFamily
from components.generator.families.noise_process import FlowMatching
from components.runtime.errors import InputError

#: Tokens of a prompt that the pipeline keeps, its system prompt not counted.
MAX_TOKENS = 256


class HunyuanVideo(ModelFamily):
    """`HunyuanVideoPipeline`. The released network is guidance-distilled; others take two passes.

    Embeddings are Llama's, with the mask as their last column and CLIP's pooled embedding as their last row.
    """

    pipeline_class = "HunyuanVideoPipeline"
    text_encoders = ("text_encoder", "text_encoder_2")
    lora_targets = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_add_out",
        "ff.net.0.proj",
        "ff.net.2",
        "ff_context.net.0.proj",
        "ff_context.net.2",
        "proj_mlp",
        "proj_out",
    )
    hints = MemoryHints(vae=torch.float16)

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        config = self.denoiser.config
        if config.pooled_projection_dim > config.text_embed_dim:
            raise InputError(
                f"transformer pooled_projection_dim = {config.pooled_projection_dim}:"
                f" at most text_embed_dim = {config.text_embed_dim} is allowed"
            )
        self.noise_process = FlowMatching(float(pipeline.scheduler.config.num_train_timesteps))
        # A clip of the released size does not fit a GPU's memory in one piece; smaller ones are left whole.
        pipeline.vae.enable_tiling()

    @property
    def guidance_distilled(self) -> bool:
        return bool(self.denoiser.config.guidance_embeds)

    @property
    def embedding_shape(self) -> tuple[int, int]:
        return MAX_TOKENS + 1, self.denoiser.config.text_embed_dim + 1

    def embed(self, prompts: list[str]) -> Tensor:
        text, pooled, mask = self.pipeline.encode_prompt(
            prompts, device=self.text_device, max_sequence_length=MAX_TOKENS
        )
        rows = torch.cat([text, mask.to(text.dtype)[..., None]], dim=-1)
        last = F.pad(pooled.to(text.dtype), (0, rows.shape[-1] - pooled.shape[-1]))
        return torch.cat([rows, last[:, None]], dim=1)

    @property
    def patch(self) -> tuple[int, int, int]:
        config = self.denoiser.config
        return config.patch_size_t, config.patch_size, config.patch_size

    def predict(self, latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        config, dtype = self.denoiser.config, self.denoiser.dtype
        scale = torch.full((len(latents),), self.guidance, dtype=dtype, device=latents.device) * 1000.0
        return self.denoise(
            latents,
            time,
            embeddings[:, :-1, :-1],
            encoder_attention_mask=embeddings[:, :-1, -1],
            pooled_projections=embeddings[:, -1, : config.pooled_projection_dim],
            guidance=scale if config.guidance_embeds else None,
        )

    def set_timesteps(self, scheduler: Any, steps: int, shape: Sequence[int]) -> None:
        sigmas = np.linspace(1.0, 0.0, steps + 1)[:-1]
        scheduler.set_timesteps(sigmas=sigmas, device=self.device)
