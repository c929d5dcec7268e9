"""The whole tree of params: `run` and one section per step, each declared beside its step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from components.alignment.params import AlignmentParams
from components.corpus.params import CorpusParams
from components.evaluation.params import EvaluationParams
from components.generator.params import GeneratorParams
from components.registry.params import RegistryParams
from components.reward.params import RewardParams
from components.runtime.params import (
    RunParams,
    Section,
    StepParams,
    load_tree,
    section_of,
    validated,
    with_taken_over,
)


class Params(Section):
    """Everything params.yaml may say."""

    run: RunParams = Field(default_factory=RunParams, description="shared by every step")
    corpus: CorpusParams = Field(default_factory=CorpusParams, description="clips and prompts")
    generator: GeneratorParams = Field(
        default_factory=GeneratorParams, description="the base text-to-video model"
    )
    reward: RewardParams = Field(default_factory=RewardParams, description="the video quality reward")
    alignment: AlignmentParams = Field(
        default_factory=AlignmentParams, description="online preference optimisation"
    )
    evaluation: EvaluationParams = Field(default_factory=EvaluationParams, description="base beside aligned")
    registry: RegistryParams = Field(default_factory=RegistryParams, description="gate and promotion")

    @model_validator(mode="before")
    @classmethod
    def _share_run(cls, values: Any) -> Any:
        """Give every section the top level's `run`: section `x` then equals what step x itself reads."""
        if not isinstance(values, Mapping):
            return values
        run = values.get("run") or {}
        shared = {
            name: {**with_taken_over(kind, name, values), "run": run}
            for name, kind in step_sections().items()
        }
        return {**values, "run": run, **shared}


def step_sections() -> dict[str, type[StepParams]]:
    """The steps' sections by name, in the order of the steps."""
    return {
        name: field.annotation
        for name, field in Params.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, StepParams)
    }


def load_params(file: str | Path | None, overrides: Sequence[str] = ()) -> Params:
    """The whole tree from a YAML file and "section.key=value" overrides.

    Raises:
        InputError: naming the key path, what was given and what is allowed.
    """
    tree = load_tree(file, overrides)
    validated(RunParams, section_of(tree, "run"), "run")
    return validated(Params, tree)


def resolved(params: Params) -> dict[str, Any]:
    """The tree as params.yaml would hold it in full: `run` once, at the top; what a section takes over from
    another stands in both, as a step by itself reads its own section alone."""
    tree = params.model_dump(mode="json")
    for name in step_sections():
        del tree[name]["run"]
    return tree


def json_schema() -> dict[str, Any]:
    """JSON Schema of params.yaml; editors check a file against it."""
    schema = Params.model_json_schema()
    for name in step_sections():
        reference = schema["properties"][name]["$ref"].rsplit("/", 1)[-1]
        schema["$defs"][reference]["properties"].pop("run")
    return schema
