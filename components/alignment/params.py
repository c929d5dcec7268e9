"""Params of the alignment step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.runtime.params import StepParams


class AlignmentParams(StepParams):
    """Online DPO.

    The paper does not give beta, learning rate, candidates or batch: these are our own, measured on the
    miniature.
    """

    iterations: int = Field(24, ge=1, description="rounds of: sample, score, pair, update")
    prompts: int = Field(8, ge=1, description="prompts per iteration")
    candidates: int = Field(
        6, ge=2, description="clips per prompt, of which the best and the worst become a pair"
    )
    updates: int = Field(
        4, ge=1, description="optimizer steps per iteration, each over all pairs with fresh noise"
    )
    noise_draws: int = Field(2, ge=1, description="draws of (noise, time) per pair and optimizer step")
    beta: float = Field(
        150.0, gt=0, description="strength of the pull to the reference; means little without loss_reduction"
    )
    loss_reduction: Literal["mean", "sum"] = Field(
        "mean", description="how a clip's squared error is reduced over its latent's elements"
    )
    winner_weight: float = Field(
        0.2, ge=0, description="weight of the winner's own denoising error, added to the DPO loss"
    )
    learning_rate: float = Field(
        3e-4, gt=0, description="AdamW learning rate of the LoRA; decays linearly to a tenth"
    )
    lora_rank: int = Field(16, ge=1, description="rank of the LoRA; its alpha is equal to it")
    refresh_every: int = Field(
        40, ge=1, description="optimizer steps between refreshes of the reference (policy -> reference)"
    )
    refresh_reward_every: int = Field(
        0,
        ge=0,
        description="refreshes of the reference between refreshes of the reward with the policy's samples; "
        "0 keeps one reward throughout",
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
        description="a pair needs a reward gap of more than this many times the reward's own doubt about it, "
        "the root of the sum of both clips' squared spreads; 0 asks for nothing",
    )
    motion_floor: float = Field(
        0.6, ge=0, le=1, description="a winner must move at least this share of what its loser moves"
    )
    pairs_per_forward: int = Field(
        64, ge=1, description="pairs (times draws) in one forward pass; changes memory, not the result"
    )
    checkpoint_every: int = Field(4, ge=1, description="iterations between checkpoints")
