"""Does the clip show what its prompt says? Read back from pixels by the miniature world's exact detector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from components.corpus.world.detect import ObjectReading
from components.corpus.world.scene import BACKGROUNDS, Scene
from components.evaluation.dimensions.base import Dimension, Video, VideoScore
from components.evaluation.models import ModelStore
from components.video.decode.frames import held

DETECTOR = "the miniature world's detector"


def read_background(frames: Tensor, reading: ObjectReading) -> str:
    """The world's background nearest to the median grey outside the object; frames uint8 (T, 3, H, W)."""
    grey = frames.numpy().astype(np.float64).mean(axis=1) / 255.0
    outside = reading.masks < 0.05
    level = float(np.median(grey[outside] if outside.any() else grey))
    return min(BACKGROUNDS, key=lambda name: abs(BACKGROUNDS[name] - level))


def _dimension(
    name: str, definition: str, score: Callable[[Tensor, Scene, ObjectReading], float]
) -> Dimension:
    def measure(video: Video, store: ModelStore) -> VideoScore:
        assert video.scene is not None and video.reading is not None  # what `world` says
        return VideoScore(float(score(held(video.frames), video.scene, video.reading)))

    return Dimension(
        name=name,
        definition=definition,
        score=measure,
        world=True,
        method=f"read back by {DETECTOR}",
        shortest=3,
    )


def _as_described(name: str, definition: str) -> Dimension:
    """Whether an attribute that was read back is the prompt's."""
    return _dimension(
        name, definition, lambda clip, scene, reading: getattr(reading, name) == getattr(scene, name)
    )


# A clip in which nothing is detected scores 0 everywhere; VBench leaves such clips out of `color`, which
# rewards blank ones.
DIMENSIONS = (
    _dimension(
        "object_class",
        "share of frames in which an object is found (which one it is: see shape)",
        lambda clip, scene, reading: float(reading.found.mean()),
    ),
    _dimension(
        "color",
        "clips whose object has the prompt's colour",
        lambda clip, scene, reading: reading.colour == scene.colour,
    ),
    _as_described("shape", "clips whose object has the prompt's shape"),
    _as_described(
        "direction",
        "clips whose object moves the way the prompt says; stands in for VBench's spatial relations",
    ),
    _as_described("speed", "clips whose object moves as fast as the prompt says"),
    _dimension(
        "background",
        "clips whose background is the prompt's",
        lambda clip, scene, reading: read_background(clip, reading) == scene.background,
    ),
)
