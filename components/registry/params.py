"""Parameters of the registry step: the gate's rules, as data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.runtime.params import Section, StepParams


class Rule(Section):
    """One absolute requirement on a metric of the candidate."""

    metric: str = Field(min_length=1, description="name in the metrics.json of the source")
    source: Literal["evaluation", "reward", "generator", "alignment"] = Field(
        "evaluation", description="step whose metrics.json holds the metric"
    )
    at_least: float | None = Field(None, description="smallest allowed value, in the metric's own unit")
    above: float | None = Field(None, description="the value must lie above this, in the metric's own unit")
    at_most: float | None = Field(None, description="largest allowed value, in the metric's own unit")
    when_absent: Literal["refuse", "skip"] = Field(
        "refuse", description="what a missing metric means (a dimension may be unavailable for some prompts)"
    )

    @model_validator(mode="after")
    def _bounded(self) -> Rule:
        if self.at_least is None and self.at_most is None and self.above is None:
            raise ValueError("a rule needs at_least, above or at_most")
        return self


class RelativeRule(Section):
    """One requirement on a metric of the candidate relative to the champion's; higher is better."""

    metric: str = Field(min_length=1, description="name in the evaluation's metrics.json")
    largest_drop: float = Field(
        0.0, ge=0, description="how far below the champion it may lie, in the metric's own unit"
    )


#: The quality floor: a win shown by the reward and by the judge, nothing important lost.
ABSOLUTE: tuple[Rule, ...] = (
    Rule(metric="pairs", at_least=96),
    Rule(metric="win_rate_reward_low", above=0.5),
    Rule(metric="win_rate_judge_low", above=0.5),
    Rule(metric="worst_semantic_delta", at_least=-0.03),
    Rule(metric="motion_ratio", at_least=0.85, at_most=1.15),
    Rule(metric="diversity_ratio", at_least=0.90),
)
RELATIVE: tuple[RelativeRule, ...] = (
    RelativeRule(metric="aligned/judge", largest_drop=0.005),
    RelativeRule(metric="aligned/reward", largest_drop=0.05),
)


class RegistryParams(StepParams):
    """Where a candidate is registered and what it must show to become the champion."""

    model: str = Field(
        "onlinevpo-generator",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="name of the registered model",
    )
    rules: tuple[Rule, ...] = Field(ABSOLUTE, description="absolute requirements; all must hold")
    relative: tuple[RelativeRule, ...] = Field(
        RELATIVE, description="requirements against the champion; all must hold"
    )
    fail_on_refusal: bool = Field(
        False,
        description="end with exit code 3 on a refusal; the decision is published either way",
    )
