"""Parameters of the registry step."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.runtime.params import Place, StepParams

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"


class RegistryParams(StepParams):
    """Where a candidate is registered and what it must show to become the champion."""

    model: str = Field("onlinevpo-generator", pattern=NAME, description="name of the registered generator")
    reward_model: str = Field("onlinevpo-reward", pattern=NAME, description="name of the registered reward")
    gate: Annotated[str | None, Place()] = Field(
        None,
        min_length=1,
        description="gate file, by which the evaluation's page goes, too: a path or s3:// URI; "
        "null = components/runtime/gate/gate.yaml",
    )
    fail_on_refusal: bool = Field(
        False,
        description="end with exit code 3 on a refusal; the decision is published either way",
    )
