"""The pretrained models behind the dimensions: what they are, where their weights lie, opened when needed."""

from components.evaluation.models.catalogue import WEIGHTS, Weights
from components.evaluation.models.store import ModelStore

__all__ = ["WEIGHTS", "ModelStore", "Weights"]
