"""What tests of dimensions with weights share: clips, and a dimension's score of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from components.evaluation.dimensions.base import Dimension, LeftOut, Video, VideoScore
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.models import ModelStore
from tests.evaluation import literal
from tests.evaluation.tiny_weights import OBJECTS

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
DINO_MEAN, DINO_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
#: As COCO, and so the suite, calls them; the detector's own names are Pascal's.
NAMES = [{"motorbike": "motorcycle", "sofa": "couch"}.get(name, name) for name in OBJECTS]


def frames(number: int = 5, height: int = 40, width: int = 56, seed: int = 0) -> torch.Tensor:
    """Blobs that wander, and a flash: neighbouring frames are alike, but not too much."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    shown = []
    for t in range(number):
        picture = np.zeros((3, height, width))
        for blob in range(4):
            at = np.array([height, width]) * (0.2 + 0.2 * blob) + np.array([1.5, -2.0]) * t * (blob + 1)
            picture[blob % 3] += 200 * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 60)
        picture += rng.normal(0, 12, picture.shape) + (60 if t == 3 else 20)
        shown.append(np.clip(picture, 0, 255))
    return torch.from_numpy(np.stack(shown).astype(np.uint8))


def with_weights(name: str) -> Dimension:
    return next(one for one in catalogue()[name] if one.needs == "weights")


def value(name: str, store: ModelStore, compat: bool = False, prompt: str = "", **facts: Any) -> float:
    return outcome(name, store, compat, prompt, **facts).value


def outcome(name: str, store: ModelStore, compat: bool = False, prompt: str = "", **facts: Any) -> VideoScore:
    found = either(name, store, compat, prompt, **facts)
    assert isinstance(found, VideoScore)
    return found


def left_out(name: str, store: ModelStore, compat: bool = False, prompt: str = "", **facts: Any) -> str:
    found = either(name, store, compat, prompt, **facts)
    assert isinstance(found, LeftOut)
    return found.reason


def either(
    name: str, store: ModelStore, compat: bool = False, prompt: str = "", **facts: Any
) -> VideoScore | LeftOut:
    video = Video(frames(), 8.0, prompt, {name: facts}, name=f"{prompt}-0.mp4")
    return with_weights(name).of(video, store, compat)


def levels() -> list[literal.Array]:
    return list(frames().numpy().astype(np.float64))


def clip_pixels(frame: literal.Array, side: int) -> torch.Tensor:
    small = literal.to_shorter(frame, side, lambda old, new: literal.plain_weights(old, new, "bicubic"))
    return literal.scaled(literal.middle_square(small, side) / 255, CLIP_MEAN, CLIP_STD)
