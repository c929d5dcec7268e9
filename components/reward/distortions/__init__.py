"""Distortions by family; importing the package registers all of them."""

from components.reward.distortions import codec, diffusion, spatial, temporal
from components.reward.distortions.attacks import ATTACKS, GENERATED_ATTACKS
from components.reward.distortions.base import (
    FAMILIES,
    LEVELS,
    REGISTRY,
    Distortion,
    Recipe,
    apply_recipe,
    find,
    random_recipe,
)
from components.reward.distortions.generator_made import GENERATIVE, GenerativeLadder

__all__ = [
    "ATTACKS",
    "FAMILIES",
    "GENERATED_ATTACKS",
    "GENERATIVE",
    "LEVELS",
    "REGISTRY",
    "Distortion",
    "GenerativeLadder",
    "Recipe",
    "apply_recipe",
    "codec",
    "diffusion",
    "find",
    "random_recipe",
    "spatial",
    "temporal",
]
