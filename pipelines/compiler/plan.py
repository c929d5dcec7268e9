"""What a profile's alignment takes of its GPUs, before one is rented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.planning.blueprints import blueprint_of
from components.planning.gpus import gpu_of
from components.planning.plan import UTILISATION, MemoryPlan, plan
from components.runtime.errors import InputError
from pipelines.compiler.compile import effective_params
from pipelines.compiler.profile import load_profile

#: The label by which GPU feature discovery tells what a node's GPUs are.
PRODUCT = "nvidia.com/gpu.product"


def plan_profile(
    params_file: str | Path | None,
    overrides: Sequence[str],
    profile: str,
    gpu: str | None = None,
    utilisation: float = UTILISATION,
) -> MemoryPlan:
    """Plan the alignment of a profile's params on the GPUs that it asks for.

    Args:
        gpu: a GPU's label, instead of the one that the profile's alignment selects nodes by.

    Raises:
        InputError: wrong params or profile, no or an unknown GPU, an unknown base.
    """
    loaded = load_profile(profile)
    params, place = effective_params(params_file, overrides, loaded), loaded.place("alignment")
    label = gpu or place.node_selector.get(PRODUCT)
    if label is None:
        raise InputError(
            f"profile {profile}: steps.alignment.node_selector has no {PRODUCT}; name the GPU with --gpu"
        )
    blueprint = blueprint_of(params.generator.base, params.generator.revision)
    gpus = max(1, place.gpus) * place.nodes
    return plan(blueprint, params.generator.sampling, params.alignment, gpu_of(label), gpus, utilisation)
