"""diffusers' own pipelines asked for what a family does, each in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from components.generator.families import ModelFamily
from components.video.clip import ClipFormat


def to_theirs(family: ModelFamily, latents: Tensor) -> Tensor:
    """Latents (B, C, T, h, w) laid out as the pipeline takes and gives them."""
    if family.pipeline_class == "CogVideoXPipeline":
        return latents.transpose(1, 2)
    if family.pipeline_class == "LTXPipeline":
        return family.pipeline._pack_latents(latents)
    return latents


def from_theirs(family: ModelFamily, latents: Tensor, geometry: ClipFormat) -> Tensor:
    """Undo ``to_theirs``."""
    if family.pipeline_class == "CogVideoXPipeline":
        return latents.transpose(1, 2)
    if family.pipeline_class == "LTXPipeline":
        return family.pipeline._unpack_latents(latents, *family.latent_shape(geometry)[1:])
    return latents


def asked_frames(family: ModelFamily, geometry: ClipFormat) -> int:
    """The ``num_frames`` that makes the pipeline return the geometry's count.

    ``WanPipeline`` rounds a count that is not one more than a multiple of the temporal compression, and tests
    it by ``num_frames % compression != 1``: with the miniature's compression of 1 that always
    holds, and 8 makes 9.
    """
    rounds_up = family.pipeline_class == "WanPipeline" and family.compression[0] == 1
    return geometry.frames - rounds_up


def call(
    family: ModelFamily,
    prompts: Sequence[str],
    geometry: ClipFormat,
    *,
    guidance: float = 1.0,
    steps: int = 2,
    latents: Tensor | None = None,
    num_frames: int | None = None,
    **others: Any,
) -> Tensor:
    """The pipeline's own call: latents (B, C, T, h, w), or what ``output_type`` asks for."""
    name = family.pipeline_class
    wanted: dict[str, Any] = {"max_sequence_length": 16, "guidance_scale": guidance}
    if name == "LTXPipeline":
        wanted["frame_rate"] = geometry.fps
    if name == "TextToVideoSDPipeline":
        del wanted["max_sequence_length"]
    if name == "HunyuanVideoPipeline":
        wanted["max_sequence_length"] = 256
        if not family.guidance_distilled:
            wanted |= {
                "guidance_scale": 1.0,
                "true_cfg_scale": guidance,
                "negative_prompt": [""] * len(prompts),
            }
    made: Tensor = family.pipeline(
        list(prompts),
        height=geometry.height,
        width=geometry.width,
        num_frames=num_frames or geometry.frames,
        num_inference_steps=steps,
        latents=None if latents is None else to_theirs(family, latents),
        **wanted,
        **{"output_type": "latent", **others},
    ).frames
    return made if "output_type" in others else from_theirs(family, made, geometry)


def last_of(family: ModelFamily, clean: Tensor, noise: Tensor) -> Tensor:
    """Where a perfect sampler ends: ModelScope's stops at the first noise level, the others at none."""
    if family.sampling_scheduler().config.get("set_alpha_to_one", True):
        return clean
    return family.noise_process.add_noise(clean, noise, torch.zeros(len(clean), dtype=torch.long))
