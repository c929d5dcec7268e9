"""From params, profile and images to pipeline.yaml: the same inputs always give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from components.params import Params, load_params, resolved
from components.runtime.artifacts.outputs import check_file, starts_with
from components.runtime.step import default_params
from pipelines.compiler.contents import with_contents
from pipelines.compiler.dag import pipeline
from pipelines.compiler.image_digests import Images, load_images
from pipelines.compiler.profile import Profile, load_profile
from pipelines.lint.lint import refuse_faults
from pipelines.lint.places import refuse_local_places
from pipelines.yaml_files import dump, write_text

HEADER = (
    "# Made by `python -m pipelines compile`; change its params, its profile or its images, not this file.\n"
)


def compile_to(
    output: Path,
    params_file: str | Path | None,
    overrides: Sequence[str],
    profile: str,
    images: Path,
    contents: bool = False,
) -> None:
    """Compile the pipeline and write it to `output`, unless `lint` finds fault with it.

    The arguments are the options of `onlinevpo compile`.

    Raises:
        InputError: if any of them is wrong, a param names a place on this machine, or `output` cannot be
            written.
        GateRefused: if the result has a fault, such as a password among the params.
    """
    check_file(output, "a compiled pipeline", starts_with(HEADER))
    chosen = load_profile(profile)
    tree = resolved(effective_params(params_file, overrides, chosen))
    refuse_local_places(tree)
    documents = documents_of(tree, chosen, load_images(images))
    if contents:
        with_contents(documents, tree)
    refuse_faults(documents, "the compiled pipeline")
    write_text(output, as_text(documents))


def effective_params(params_file: str | Path | None, overrides: Sequence[str], profile: Profile) -> Params:
    """The whole tree of params: the file's, the profile's over them, `--set` over both.

    Raises:
        InputError: naming the key path, what was given and what is allowed.
    """
    return load_params(params_file or default_params(), [*profile.overrides(), *overrides])


def documents_of(sections: Mapping[str, Any], profile: Profile, images: Images) -> list[dict[str, Any]]:
    """The pipeline as the two documents of pipeline.yaml: the pipeline itself and its Kubernetes part.

    Args:
        sections: `run` and each step's section of the params as plain values, in full.
        profile: where the tasks run.
        images: what they run in.
    """
    built = pipeline(sections, profile, images)
    return [MessageToDict(built.pipeline_spec), MessageToDict(built.platform_spec)]


def as_text(documents: Sequence[Mapping[str, Any]]) -> str:
    """Documents as the text of a file. kfp's compiler would add comments, whose order varies."""
    return HEADER + dump(documents)
