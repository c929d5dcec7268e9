"""Params of the generator step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.runtime.params import Place, Section, StepParams


class SamplingParams(Section):
    """How a clip is drawn. The defaults fit the built-in miniature; a profile sets them for a real model."""

    num_frames: int = Field(9, ge=1, description="frames per clip")
    height: int = Field(48, ge=16, description="height in pixels")
    width: int = Field(48, ge=16, description="width in pixels")
    fps: float = Field(8.0, gt=0, description="frames per second of the clip")
    steps: int = Field(8, ge=1, description="denoising steps per clip")
    guidance: float = Field(
        1.0,
        ge=1,
        description="classifier-free guidance scale; 1 = none, at half the cost; a guidance-distilled network"
        " takes the scale as an input",
    )
    batch: int = Field(
        48, ge=1, description="clips drawn in one batch; changes speed and memory, not the clips"
    )
    precision: Literal["float32", "half"] = Field(
        "float32",
        description="type of the base's weights; half = the 16 bits its release runs in, for GPUs",
    )


class MiniatureParams(Section):
    """How the built-in miniature is trained by `python -m components.generator train`."""

    clips: int = Field(16_000, ge=1, description="training clips")
    degraded_share: float = Field(
        0.5, ge=0, le=1, description="share of training clips that are degraded without the caption saying so"
    )
    vae_steps: int = Field(3_000, ge=1, description="steps of VAE training")
    vae_batch: int = Field(32, ge=1, description="clips per VAE step")
    vae_learning_rate: float = Field(1.5e-3, gt=0, description="peak AdamW learning rate of the VAE")
    flow_steps: int = Field(14_000, ge=1, description="steps of flow-matching training")
    flow_batch: int = Field(256, ge=1, description="clips per flow-matching step")
    flow_learning_rate: float = Field(
        1e-3, gt=0, description="peak AdamW learning rate of transformer and text encoder"
    )
    shift: float = Field(3.0, gt=0, description="time shift of the sampling schedule")


class GeneratorParams(StepParams):
    """The base text-to-video model and the clips drawn from it for the steps that follow."""

    base: Annotated[str, Place(hub=True)] = Field(
        "models/miniature",
        min_length=1,
        description="diffusers pipeline: local folder, s3:// prefix or hub id",
    )
    revision: str | None = Field(
        None, description="branch, tag or commit of a hub id; null = the hub's default"
    )
    sampling: SamplingParams = Field(default_factory=SamplingParams, description="how a clip is drawn")
    prompts: int = Field(64, ge=1, description="training prompts to draw base samples for")
    samples_per_prompt: int = Field(6, ge=2, description="base samples per prompt, each with its own seed")
    miniature: MiniatureParams = Field(
        default_factory=MiniatureParams, description="training of the miniature"
    )
