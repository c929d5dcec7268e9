"""What the rest of the project needs to know about a text-to-video model, whatever its architecture.

A family is one small class around a diffusers pipeline. Everything outside this folder sees latents as
(B, C, T, h, w) float32 tensors, prompts as opaque embeddings with the batch in front, and time as the
family's own training time; the family turns these into its model's call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from components.generator.families.processes import NoiseProcess
from components.runtime.files import sort_safetensors_header


@dataclass(frozen=True)
class Geometry:
    """The shape of one generated clip: frames, height and width in pixels, frames per second."""

    num_frames: int
    height: int
    width: int
    fps: float


class ModelFamily(ABC):
    """A text-to-video model behind the interface that sampling and alignment share.

    Attributes:
        pipeline_class: name of the diffusers pipeline class in ``model_index.json``; it selects the family.
        lora_targets: module name endings of the transformer (or UNet) that LoRA adapts by default.
        pipeline: the diffusers pipeline; its parts are frozen and in evaluation mode.
        process: the noise process the model was trained with.
    """

    pipeline_class: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]]
    process: NoiseProcess

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        for module in self.pipeline.components.values():
            if isinstance(module, nn.Module):
                module.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Device the denoiser lies on."""
        return next(self.denoiser.parameters()).device

    @property
    @abstractmethod
    def denoiser(self) -> Any:
        """The network that is trained: a diffusers model with ``add_adapter`` (transformer or UNet)."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return prompt embeddings (B, L, D) in the denoiser's dtype; the empty prompt is unconditional."""

    @abstractmethod
    def latent_shape(self, geometry: Geometry) -> tuple[int, int, int, int]:
        """Return (C, T, h, w) of one clip's latents. Raises ``InputError`` for a size it cannot make."""

    @abstractmethod
    def predict(self, latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        """Return the network's output, float32 (B, C, T, h, w), for noisy latents at training times (B,)."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Return frames, uint8 (B, T, 3, H, W), of clean latents (B, C, T, h, w).

        One clip at a time where memory asks for it.
        """

    @abstractmethod
    def encode(self, frames: Tensor) -> Tensor:
        """Return clean latents (B, C, T, h, w), the posterior's mean, of uint8 frames (B, T, 3, H, W)."""

    def sampling_scheduler(self) -> Any:
        """Return a fresh, deterministic scheduler for sampling (ODE or DDIM with eta 0)."""
        return type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)

    def times_of(self, timesteps: Tensor) -> Tensor:
        """Turn a scheduler's timesteps into the training times ``predict`` takes: the same by default."""
        return timesteps

    def save_lora(self, folder: Path, adapter: str) -> None:
        """Write one adapter of the denoiser as ``pytorch_lora_weights.safetensors``.

        ``load_lora_weights`` of diffusers reads it.
        """
        state = get_peft_model_state_dict(self.denoiser, adapter_name=adapter)
        layers = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        # peft keeps module names in sets, whose order changes from process to process;
        # equal weights shall be equal files.
        config = self.denoiser.peft_config[adapter].to_dict()
        metadata = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        self.pipeline.save_lora_weights(
            folder,
            transformer_lora_layers=layers,
            transformer_lora_adapter_metadata=metadata,
            safe_serialization=True,
        )
        sort_safetensors_header(folder / "pytorch_lora_weights.safetensors")
