"""Parameters of the evaluation step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from components.runtime.params import Place, StepParams


class EvaluationParams(StepParams):
    """What is sampled, compared and shown."""

    taken_over: ClassVar[Mapping[str, str]] = {"gate": "registry.gate"}

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
    resamples: int = Field(10_000, ge=1000, description="sign flips of the tests, by prompt")
    tie_reward: float = Field(
        1e-6, ge=0, description="reward differences up to this are a tie (reward's own units)"
    )
    tie_judge: float = Field(0.001, ge=0, description="judge differences up to this are a tie (0..1 scale)")
    gate: Annotated[str | None, Place()] = Field(
        None,
        min_length=1,
        description="gate file that the report page goes by; taken from registry.gate, where it is set",
    )
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

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, values: Any) -> Any:
        """Refuse what this section once set apart from the gate: two sets of rules contradict each other."""
        if isinstance(values, Mapping) and "margins" in values:
            raise ValueError(
                "margins: no longer a param: write the bounds in a gate file and name it as registry.gate "
                "(components/runtime/gate/gate.yaml is the default; the page and the registry both go by it)"
            )
        if isinstance(values, Mapping) and "confidence" in values:
            raise ValueError("confidence: no longer a param: the gate decides by 95 % intervals, so all are")
        return values
