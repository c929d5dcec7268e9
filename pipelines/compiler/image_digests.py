"""The images file: which image each family of steps runs in, always by digest.

By digest because Kubeflow's cache compares the reference's text only: a tag that moved would bring back the
results of the old image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from components.runtime.params import Section, validated
from pipelines.lint.pipeline_spec import is_pinned
from pipelines.steps import Family
from pipelines.yaml_files import read_mapping

_ALLOWED = "registry/name@sha256:<64 hex digits>, no tag `latest`"


def _pinned(reference: str) -> str:
    if not is_pinned(reference):
        raise ValueError(f"must name the image by digest: {_ALLOWED}")
    return reference


Reference = Annotated[str, AfterValidator(_pinned)]


class Images(Section):
    """One image reference per family; `images/` says what is in each."""

    data: Reference = Field(description="image of corpus")
    model: Reference = Field(description="image of generator, reward and alignment")
    evaluation: Reference = Field(description="image of evaluation")
    control: Reference = Field(
        description="image of registry, of the exit handler and of the TrainJob launcher"
    )

    def of(self, family: Family) -> str:
        """The reference of one family's image."""
        reference: str = getattr(self, family)
        return reference


def load_images(path: Path) -> Images:
    """The images file at `path`, as the build script writes it.

    Raises:
        InputError: if it cannot be read, a family is missing or unknown, or an image is not named by digest.
    """
    return validated(Images, read_mapping(path, "images file"), str(path))


def no_images() -> Images:
    """References to images that do not exist, for runs that start no container."""
    nothing = f"@sha256:{'0' * 64}"
    return Images(**{name: f"none/{name}{nothing}" for name in Images.model_fields})
