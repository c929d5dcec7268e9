"""Does the clip show what its prompt says? Read back from pixels by the miniature world's exact detector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from components.corpus.world.detect import ObjectReading
from components.corpus.world.scene import BACKGROUNDS, Scene
from components.evaluation.dimensions.base import Dimension, LeftOut, Outcome, Scorer, Video
from components.evaluation.models import Shelf
from components.video.decode.frames import held

DETECTOR = "the miniature world's detector"


def read_background(frames: Tensor, reading: ObjectReading) -> str:
    """The world's background nearest to the median grey outside the object; frames uint8 (T, 3, H, W)."""
    grey = frames.numpy().astype(np.float64).mean(axis=1) / 255.0
    outside = reading.masks < 0.05
    level = float(np.median(grey[outside] if outside.any() else grey))
    return min(BACKGROUNDS, key=lambda name: abs(BACKGROUNDS[name] - level))


def _each(score: Callable[[Tensor, Scene, ObjectReading], float]) -> Scorer:
    def measure(video: Video, shelf: Shelf) -> Outcome | LeftOut:
        if video.scene is None or video.reading is None:
            return LeftOut("the prompt does not describe a scene of the miniature world")
        return Outcome(float(score(held(video.frames), video.scene, video.reading)))

    return measure


def _dimension(
    name: str, definition: str, score: Callable[[Tensor, Scene, ObjectReading], float]
) -> Dimension:
    return Dimension(
        name=name,
        group="semantic",
        definition=definition,
        needs="world",
        shortest=3,
        method=f"read back by {DETECTOR}",
        score=_each(score),
    )


# A clip in which nothing is found scores 0 everywhere; VBench leaves such clips out of `color`, which rewards
# blank ones.
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
    _dimension(
        "shape",
        "clips whose object has the prompt's shape",
        lambda clip, scene, reading: reading.shape == scene.shape,
    ),
    _dimension(
        "direction",
        "clips whose object moves the way the prompt says; stands in for VBench's spatial relations",
        lambda clip, scene, reading: reading.direction == scene.direction,
    ),
    _dimension(
        "speed",
        "clips whose object moves as fast as the prompt says",
        lambda clip, scene, reading: reading.speed == scene.speed,
    ),
    _dimension(
        "background",
        "clips whose background is the prompt's",
        lambda clip, scene, reading: read_background(clip, reading) == scene.background,
    ),
)
