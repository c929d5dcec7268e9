"""The pipeline itself: the steps in their order, and an exit handler around all of them.

No branch anywhere: a gate is a step that ends with exit code 3, and what comes after it does not run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.registry.versions.provenance import IMAGES_VARIABLE
from components.runtime.params import canonical_json
from pipelines.compiler.image_digests import Images
from pipelines.compiler.placement import place_finish, place_launcher, place_step, trainjob_settings
from pipelines.compiler.profile import Profile
from pipelines.compiler.task_components import finish_component, step_component, trainjob_component
from pipelines.steps import ARTIFACT, FINISH, PIPELINE_INPUTS, RUN_PARAMS, STEP_PARAMS, STEPS, Step

NAME = "onlinevpo"
_DESCRIPTION = "Aligns a text-to-video model online with a video-quality reward."
#: Steps whose result depends on more than their inputs, so that an earlier one must not stand in for it:
#: the registry compares with whoever is champion now.
UNCACHED = frozenset({"registry"})


def pipeline(sections: Mapping[str, Any], profile: Profile, images: Images) -> Any:
    """The pipeline as kfp's graph component, which compiles, or runs when it is called under `kfp.local`.

    Args:
        sections: `run` and each step's section of the params, in full; the defaults of the inputs.
        profile: where the tasks run.
        images: what they run in.
    """
    inputs = PIPELINE_INPUTS

    def onlinevpo(*values: Any) -> None:
        given = dict(zip(inputs, values, strict=True))
        finish = finish_component(images)()
        place_finish(finish, profile, profile.place(FINISH))
        with dsl.ExitHandler(finish, name="all steps"):
            tasks: dict[str, dsl.PipelineTask] = {}
            for step in STEPS:
                tasks[step.name] = _task(step, profile, images)(
                    **{RUN_PARAMS: given[RUN_PARAMS], STEP_PARAMS: given[f"{step.name}_params"]},
                    **{name: tasks[name].outputs[ARTIFACT] for name in step.inputs},
                )
                _placed(step, tasks[step.name], profile)
            # No container knows the digest of its own image; the registry writes down what all of them are.
            named = canonical_json(images.model_dump(mode="json"))
            tasks["registry"].set_env_variable(IMAGES_VARIABLE, named)

    onlinevpo.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=canonical_json(sections[section]),
                annotation=str,
            )
            for name, section in inputs.items()
        ]
    )
    onlinevpo.__doc__ = "\n".join(
        [
            f"{_DESCRIPTION} Profile: {profile.description}",
            "",
            "Args:",
            *(f"    {name}: section `{section}` of the params, as JSON" for name, section in inputs.items()),
        ]
    )
    return dsl.pipeline(name=NAME)(onlinevpo)


def _task(step: Step, profile: Profile, images: Images) -> Any:
    place = profile.place(step.name)
    if place.nodes > 1:
        settings = trainjob_settings(images.of(step.family), profile, place)
        return trainjob_component(step, images, settings)
    return step_component(step, images, processes=place.gpus if step.scales else 1)


def _placed(step: Step, task: dsl.PipelineTask, profile: Profile) -> None:
    place = profile.place(step.name)
    (place_launcher if place.nodes > 1 else place_step)(task, profile, place)
    if step.name in UNCACHED:
        task.set_caching_options(False)
