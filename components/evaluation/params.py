"""Parameters of the evaluation step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.runtime.params import Place, Section, StepParams


class Margins(Section):
    """How much worse the aligned model may be on what the reward does not see; stated before looking."""

    semantic_drop: float = Field(
        0.03, ge=0, le=1, description="largest allowed fall of any semantic score (0..1 scale)"
    )
    steadiness_drop: float = Field(
        0.01,
        ge=0,
        le=1,
        description="largest allowed fall of temporal flickering and motion smoothness; their whole interval "
        "must keep it",
    )
    motion_change: float = Field(
        0.15, ge=0, description="largest allowed relative change of mean motion, either way"
    )
    diversity_drop: float = Field(0.10, ge=0, le=1, description="largest allowed relative fall of diversity")


class EvaluationParams(StepParams):
    """What is sampled, compared and shown."""

    prompts: int = Field(
        96, ge=1, description="held-out prompts, drawn by the run's seed (all of them if fewer exist)"
    )
    seeds: int = Field(
        2, ge=1, le=25, description="videos per prompt, each with its own seed, the same for both models"
    )
    flow_pairs: int = Field(
        48,
        ge=1,
        description="pairs on which optical flow, which is slow, is estimated (smoothness, dynamic degree)",
    )
    batch: int = Field(32, ge=1, description="videos sampled in one call; does not change the result")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="coverage of the intervals")
    resamples: int = Field(10_000, ge=1000, description="bootstrap resamples and sign flips, by prompt")
    tie_reward: float = Field(
        1e-6, ge=0, description="reward differences up to this are a tie (reward's own units)"
    )
    tie_judge: float = Field(0.001, ge=0, description="judge differences up to this are a tie (0..1 scale)")
    margins: Margins = Field(Margins(), description="non-inferiority margins")
    weights: Annotated[str, Place(words=frozenset({"hub"}))] = Field(
        "",
        description="place of the pretrained models' weights: a folder or s3:// prefix made by "
        "`weights fetch`, or hub; empty: dimensions that need them are unavailable",
    )
    compat: Literal["", "vbench"] = Field(
        "", description="vbench: the published variant of each dimension where ours differs by choice"
    )
    report_pairs: int = Field(
        4, ge=1, le=24, description="pairs shown per group (best, worst, random) in the report"
    )
