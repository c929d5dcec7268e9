"""The pretrained models that can stand behind a reward: one entry each, found by the model's own config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGE_FRAMES = 16
"""Frames of a clip that an image model reads, at most: as many as VideoMAE does."""


@dataclass(frozen=True)
class Kind:
    """How a family of models is loaded and fed.

    Attributes:
        model: name of the class in `transformers`.
        video: whether it reads clips; otherwise single frames.
        tower: the part of a larger model's config that describes this one, "" for all of it.
        settings: entries of the config to change: parts of the model that would hold weights without a use.
        resizable: whether it also reads square frames of another size than its config names.
        mean, std: of the pixels of each colour in 0..1, where no preprocessor_config.json tells.
    """

    model: str
    video: bool = False
    tower: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    resizable: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


_SIGLIP: dict[str, Any] = {
    "model": "SiglipVisionModel",
    "settings": {"vision_use_head": False},
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}

KINDS: dict[str, Kind] = {
    "videomae": Kind("VideoMAEModel", video=True),
    "dinov2": Kind("Dinov2Model", settings={"use_mask_token": False}, resizable=True),
    "siglip": Kind(**_SIGLIP, tower="vision_config"),
    "siglip_vision_model": Kind(**_SIGLIP),
}
"""By `model_type` in the model's config.json."""
