"""Is what the prompt names there, in its colour, in its place? A detector on sixteen frames of each video."""

from __future__ import annotations

import re
from functools import partial
from itertools import combinations

from torch import Tensor

from components.evaluation.dimensions.base import (
    Dimension,
    LeftOut,
    ScoreFunction,
    Video,
    VideoScore,
    share_of_frames,
)
from components.evaluation.models import ModelStore
from components.evaluation.models.preprocessing import middle
from components.runtime.errors import InputError

FRAMES = 16
#: Colours that VBench listens for in a caption.
COLOURS = frozenset(
    ("white", "red", "pink", "blue", "silver", "purple", "orange", "green", "gray", "yellow", "black", "grey")
)
#: Boxes that overlap less than this (intersection over union) count as apart.
APART = 0.1
_ACROSS = ("on the right of", "on the left of")
_DOWN = ("on the bottom of", "on the top of")

Box = tuple[float, float, float, float]


def chosen_frames(video: Video) -> Tensor:
    """The sixteen frames that are looked at, uint8 (16, 3, H, W)."""
    return video.frames[middle(len(video.frames), FRAMES)]


def unknown(store: ModelStore, *objects: str) -> LeftOut | None:
    """Why a video is left out: the detector has no class for one of its objects."""
    names = [name for name in objects if name not in store.open("detector").labels]
    return LeftOut(f"the detector has no class for {' and '.join(names)}") if names else None


def position_score(relation: str, one: Box, other: Box) -> float:
    """VBench's position score of two boxes (left, top, right, bottom): 0 for the wrong axis, else 1, or
    0.1 / IoU where they overlap by an IoU of 0.1 or more. Left and right, above and below are not told apart.
    """
    x, y = (abs((one[at] + one[at + 2]) - (other[at] + other[at + 2])) / 2 for at in (0, 1))
    if not (x > y if relation in _ACROSS else y > x):
        return 0.0
    overlap = _overlap(one, other)
    return 1.0 if overlap < APART else APART / overlap


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    inside = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return inside / (areas - inside) if areas > inside else 0.0


def _objects_shown(dimension: str, video: Video, store: ModelStore) -> VideoScore | LeftOut:
    """Share of frames in which every object that the suite names, with " and " between them, is detected."""
    wanted = [part.strip() for part in str(video.fact(dimension, "object")).split(" and ")]
    if (reason := unknown(store, *wanted)) is not None:
        return reason
    frames = store.open("detector").detect(chosen_frames(video))
    return share_of_frames([set(wanted) <= {one.label for one in objects} for objects in frames])


def _spatial_relationship(video: Video, store: ModelStore) -> VideoScore | LeftOut:
    fact = video.fact("spatial_relationship")
    names, relation = (str(fact["object_a"]), str(fact["object_b"])), str(fact["relationship"])
    if relation not in (*_ACROSS, *_DOWN):
        raise InputError(
            f"spatial_relationship of {video.prompt!r}: {relation!r} is none of {_ACROSS + _DOWN}"
        )
    if (reason := unknown(store, *names)) is not None:
        return reason
    frames = []
    for objects in store.open("detector").detect(chosen_frames(video)):
        boxes = [one.box for one in objects if one.label in names]
        frames.append(max((position_score(relation, *pair) for pair in combinations(boxes, 2)), default=0.0))
    return VideoScore(sum(frames) / len(frames), len(frames), {"frame_results": frames})


def named_object(prompt: str, colour: str) -> str:
    """What a prompt of the form "a red bicycle" is about: "bicycle"."""
    return re.sub(rf"\b(an?|{re.escape(colour)})\b", " ", prompt).strip()


def _crop(frame: Tensor, box: Box) -> Tensor:
    """The part of (3, H, W) inside a box, at least one pixel."""
    height, width = frame.shape[-2:]
    left, top = (
        int(min(max(side, 0), limit - 1)) for side, limit in zip(box[:2], (width, height), strict=True)
    )
    right, bottom = (
        int(min(max(side, start + 1), limit))
        for side, start, limit in zip(box[2:], (left, top), (width, height), strict=True)
    )
    return frame[:, top:bottom, left:right]


def _color(video: Video, store: ModelStore, published: bool = False) -> VideoScore | LeftOut:
    """Of the frames in which any colour is said of the object, the share in which the right one is."""
    colour = str(video.fact("color"))
    wanted = named_object(video.prompt, colour)
    if (reason := unknown(store, wanted)) is not None:
        return reason
    frames = chosen_frames(video)
    crops: list[list[Tensor]] = []
    for frame, objects in zip(frames, store.open("detector").detect(frames), strict=True):
        if published:
            # Its captions are all those of a frame whose surest detection is the object.
            boxes = [one.box for one in objects] if objects and objects[0].label == wanted else []
        else:
            boxes = [one.box for one in objects if one.label == wanted]
        crops.append([_crop(frame, box) for box in boxes])
    captions = iter(store.open("captioner").captions([crop for of_frame in crops for crop in of_frame]))
    any_colour = right_colour = 0
    for of_frame in crops:
        sentences = [next(captions) for _ in of_frame]
        any_colour += any(_says(sentence, name, published) for sentence in sentences for name in COLOURS)
        right_colour += any(_says(sentence, colour, published) for sentence in sentences)
    if published and not any_colour:
        return LeftOut("no colour is said of the object, and the published figure leaves such videos out")
    share = right_colour / any_colour if any_colour else 0.0
    return VideoScore(share, details={"cur_success_frame_rate": share})


def _says(sentence: str, word: str, published: bool) -> bool:
    """Whether the sentence has the word; as published, parts of words count: "covered" says "red"."""
    return word in sentence if published else re.search(rf"\b{re.escape(word)}\b", sentence) is not None


def _by_detector(name: str, definition: str, score: ScoreFunction) -> Dimension:
    return Dimension(
        name=name,
        definition=definition,
        score=score,
        models=("detector",),
        fact=name,
        method="objects by RT-DETRv2, where VBench uses GRiT-B",
    )


DIMENSIONS = (
    _by_detector(
        "object_class",
        "share of 16 frames in which the named object is detected",
        partial(_objects_shown, "object_class"),
    ),
    _by_detector(
        "multiple_objects",
        "share of 16 frames in which both named objects are detected",
        partial(_objects_shown, "multiple_objects"),
    ),
    Dimension(
        name="color",
        definition="frames whose caption gives the object its colour, of those whose caption gives it any",
        score=_color,
        models=("detector", "captioner"),
        fact="color",
        method="objects by RT-DETRv2 and captions of their boxes by BLIP, where VBench uses GRiT-B",
        variant="a video in which no colour is seen counts 0, and colours are heard as whole words about the "
        "object's own boxes; the published figure leaves such videos out and hears parts of words about any "
        "box of a frame whose surest detection is the object",
        compat=partial(_color, published=True),
    ),
    _by_detector(
        "spatial_relationship",
        "best pair of the two objects a frame: 1 on the right axis, or 0.1 / IoU from 0.1 on",
        _spatial_relationship,
    ),
)
