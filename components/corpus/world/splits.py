"""Which scenes of the miniature world are for training, and which are held out.

The split is a property of the world, not of a run: it has no seed, so weights trained last month and a report
made today mean the same held-out captions.
"""

from __future__ import annotations

from typing import Literal

from components.corpus.world.scene import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SPEEDS, Scene, all_scenes

PromptSplit = Literal["train", "heldout"]
ClipSplit = Literal["train", "val", "test"]

HELDOUT_GROUP = 0
VALIDATION_GROUP = 1


def group_of(scene: Scene) -> int:
    """The group, 0 .. number of colours - 1, that a scene falls into.

    A linear code over the places of the five values: shape + colour + direction + 3 x speed + 2 x background,
    modulo the number of colours. The colour's factor of 1 puts, of the scenes that share the other four
    values, exactly one in each group; and as speed and background alone run through all six remainders, every
    single value and nearly every pair of values occurs equally often in each group. So what is held out is
    the combination, never the word.
    """
    place = (
        SHAPES.index(scene.shape)
        + list(COLOURS).index(scene.colour)
        + list(DIRECTIONS).index(scene.direction)
        + 3 * list(SPEEDS).index(scene.speed)
        + 2 * list(BACKGROUNDS).index(scene.background)
    )
    return place % len(COLOURS)


def split_of(scene: Scene) -> PromptSplit:
    """Whether a scene's caption may be trained on ("train", 480 of 576) or not ("heldout", 96)."""
    return "heldout" if group_of(scene) == HELDOUT_GROUP else "train"


def heldout_scenes() -> list[Scene]:
    """The 96 scenes whose captions no training ever sees, in the world's order."""
    return [scene for scene in all_scenes() if split_of(scene) == "heldout"]


def clip_split_of(scene: Scene) -> ClipSplit:
    """The split of a scene's clips: test shows the 96 held-out scenes, val another 96, train the rest."""
    group = group_of(scene)
    if group == HELDOUT_GROUP:
        return "test"
    return "val" if group == VALIDATION_GROUP else "train"


def slug(scene: Scene) -> str:
    """A short name of a scene that is fit for ids and file names."""
    return "-".join((scene.colour, scene.shape, scene.direction, scene.speed, scene.background))
