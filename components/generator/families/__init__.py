"""Model families: one file each behind one interface. A new one is a file here and a line in ``FAMILIES``."""

from components.generator.families.base import Geometry, ModelFamily
from components.generator.families.cogvideox import CogVideoX
from components.generator.families.wan import Wan

#: Every family by the pipeline class it serves.
FAMILIES: dict[str, type[ModelFamily]] = {family.pipeline_class: family for family in (Wan, CogVideoX)}

__all__ = ["FAMILIES", "Geometry", "ModelFamily"]
