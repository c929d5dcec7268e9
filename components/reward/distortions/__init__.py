"""Distortions by family; importing the package registers all of them."""

from components.reward.distortions import codec, diffusion, spatial, temporal
from components.reward.distortions.registry import (
    FAMILIES,
    LEVELS,
    REGISTRY,
    Distortion,
    Recipe,
    apply_recipe,
    find,
    random_recipe,
)

__all__ = [
    "FAMILIES",
    "LEVELS",
    "REGISTRY",
    "Distortion",
    "Recipe",
    "apply_recipe",
    "codec",
    "diffusion",
    "find",
    "random_recipe",
    "spatial",
    "temporal",
]
