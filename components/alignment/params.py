"""Params of the alignment step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from components.runtime.params import Section, StepParams

ReferenceKind = Literal["fixed", "every_k", "ema", "judged"]


class GuardParams(Section):
    """What watches the run."""

    every: int = Field(
        6,
        ge=0,
        description="iterations between readings on held-back prompts; one after the last; 0 takes none",
    )
    clips: int = Field(
        32, ge=2, description="clips of a reading, each of a prompt held back from training; at most one in 8"
    )
    patience: int = Field(2, ge=1, description="readings in a row that regressed after which the run ends")
    least_motion: float = Field(
        0.85, ge=0, le=1, description="share of the base's motion that held-out clips must keep"
    )
    drift_limit: float = Field(
        0.05,
        gt=0,
        description="mean squared difference of the policy's and the original base's predictions, over the "
        "last 4 iterations, at which the run ends",
    )
    worse_limit: float = Field(
        0.8,
        ge=0,
        le=1,
        description="share of winners with a larger error than under the reference, over the last 4 "
        "iterations, above which there is an alarm",
    )


class AlignmentParams(StepParams):
    """Online DPO.

    The paper does not give beta, learning rate, candidates or batch: these are our own, measured on the
    miniature.
    """

    renamed_keys: ClassVar[Mapping[str, str]] = {
        "prompts": "prompts_per_iteration",
        "candidates": "num_generations",
        "refill": "dynamic_sampling",
        "updates": "inner_updates",
        "noise_draws": "timesteps_per_pair",
        "objective": "loss",
        "winner_weight": "sft_weight",
        "refresh_every": "reference_sync_every",
        "shard": "fsdp",
    }

    strategy: Literal["online", "offline", "best_of_n"] = Field(
        "online",
        description="online: the policy samples its own candidates; offline: the base does, or --ledger has "
        "the pairs; best_of_n: as online, but training on winners alone",
    )
    iterations: int = Field(24, ge=1, description="rounds of: sample, score, pair, update")
    prompts_per_iteration: int = Field(8, ge=1, description="prompts that an iteration samples clips for")
    num_generations: int = Field(
        6, ge=2, description="clips per prompt, of which the best and the worst become a pair"
    )
    dynamic_sampling: int = Field(
        0, ge=0, description="times that a group without spread gets as many clips again; 0 gives it no pair"
    )
    inner_updates: int = Field(
        4, ge=1, description="optimizer steps per iteration, each over all pairs with fresh noise"
    )
    timesteps_per_pair: int = Field(
        2, ge=1, description="draws of (noise, timestep) per pair and optimizer step"
    )
    loss: Literal["dpo", "ipo", "dpop", "sdpo", "linear_dpo"] = Field(
        "dpop",
        description="see components/alignment/objectives; the default won our comparison",
    )
    beta: float = Field(
        150.0, gt=0, description="strength of the pull to the reference; depends on loss_reduction"
    )
    loss_reduction: Literal["mean", "sum"] = Field(
        "mean", description="how a clip's squared error is reduced over its latent's elements"
    )
    sft_weight: float = Field(
        0.2, ge=0, description="weight of the winner's own denoising error, added to the loss"
    )
    learning_rate: float = Field(3e-4, gt=0, description="AdamW learning rate; decays linearly to a tenth")
    lora_rank: int = Field(
        16,
        ge=0,
        description="rank and alpha of the LoRA; 0: all of the denoiser's weights are trained",
    )
    reference: ReferenceKind | None = Field(
        None,
        description="what preferences are measured against: fixed: the base; every_k: a copy of the policy "
        "every reference_sync_every updates; ema: after each update 1 / reference_sync_every nearer to the "
        "policy; judged: as every_k, if the held-out judge agrees; default: fixed if offline, else every_k",
    )
    reference_sync_every: int = Field(
        40, ge=1, description="optimizer steps between syncs of the reference (policy -> reference)"
    )
    refresh_reward_every: int = Field(
        0,
        ge=0,
        description="times reference_sync_every optimizer steps between refreshes of the reward with the "
        "policy's samples; 0 keeps one reward throughout",
    )
    min_gap: float = Field(
        0.25,
        ge=0,
        description="a pair needs a reward gap of more than this many standard deviations "
        "of the iteration's rewards",
    )
    noise_gap: float = Field(
        1.5,
        ge=0,
        description="a pair needs a reward gap above this many times the gap's uncertainty, the root "
        "of the sum of both clips' squared ensemble std; 0 requires nothing",
    )
    motion_floor: float = Field(
        0.6, ge=0, le=1, description="a winner must move at least this share of what its loser moves"
    )
    pairs_per_forward: int = Field(
        4, ge=1, description="pairs (times timesteps) in one forward pass; changes memory, not the result"
    )
    gradient_checkpointing: bool = Field(
        False,
        description="recompute the network's activations in the backward pass: less memory, about a quarter "
        "more time for the update; real models need it",
    )
    fsdp: bool = Field(
        False,
        description="each process holds only its share of the base's weights, and with lora_rank 0 of all "
        "that is trained (FSDP2): for what does not fit one GPU; changes memory and speed, not the result",
    )
    reward_device: str | None = Field(
        None,
        pattern=r"^(cpu|cuda:\d+)$",
        description="cpu or cuda:N, the reward's own device: it scores a batch of clips while the next one "
        "is sampled; under torchrun N is the GPU of a machine's first process, the others use the following "
        "ones; default: run.device, after sampling; changes memory and speed, not the result",
    )
    keep_latents: Literal["none", "pairs", "all"] = Field(
        "pairs", description="whose latents the ledger keeps; pairs: of winners and losers"
    )
    guards: GuardParams = Field(GuardParams(), description="what watches the run and can end it")
    checkpoint_every: int = Field(4, ge=1, description="iterations between checkpoints")

    @model_validator(mode="after")
    def _consistent(self) -> AlignmentParams:
        if self.strategy == "best_of_n" and self.loss != type(self).model_fields["loss"].default:
            raise ValueError(
                f"loss = {self.loss} has no effect with strategy = best_of_n, which trains on winners alone; "
                "leave it out"
            )
        if self.strategy == "offline" and self.refresh_reward_every:
            raise ValueError(
                f"refresh_reward_every = {self.refresh_reward_every}: the reward is refreshed with the "
                "policy's samples, and strategy = offline has none; 0 is allowed"
            )
        if self.reference == "judged" and not self.guards.every:
            raise ValueError(
                "reference = judged needs the held-out judge; guards.every = 0 takes no readings"
            )
        return self
