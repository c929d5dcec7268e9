"""Is what the prompt names there, in its colour, in its place? A detector on sixteen frames of each video."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

from torch import Tensor

from components.evaluation.dimensions.base import Dimension, LeftOut, Outcome, Video, innermost
from components.evaluation.models import Shelf
from components.evaluation.models.detector import Detection
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
_SUBSTITUTE = "objects by {origin}, where VBench uses GRiT-B"

Box = tuple[float, float, float, float]


def chosen_frames(video: Video) -> Tensor:
    """The sixteen frames that are looked at, uint8 (16, 3, H, W)."""
    return video.frames[middle(len(video.frames), FRAMES)]


def unknown(shelf: Shelf, *objects: str) -> LeftOut | None:
    """Objects that the detector has no class for: that it finds none then says nothing."""
    names = [name for name in objects if name not in shelf.open("detector").labels]
    return LeftOut(f"the detector has no class for {' and '.join(names)}") if names else None


def share_with(frames: Sequence[Sequence[Detection]], objects: Sequence[str]) -> Outcome:
    """Share of frames in which every one of ``objects`` is detected."""
    there = sum(set(objects) <= {one.label for one in found} for found in frames)
    counts = {"success_frame_count": there, "frame_count": len(frames)}
    return Outcome(there / len(frames), len(frames), counts)


def side_by_side(relation: str, one: Box, other: Box) -> float:
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


def _object_class(video: Video, shelf: Shelf) -> Outcome | LeftOut:
    wanted = str(innermost(video.facts["object_class"], "object"))
    if (nothing := unknown(shelf, wanted)) is not None:
        return nothing
    return share_with(shelf.open("detector").detect(chosen_frames(video)), [wanted])


def _multiple_objects(video: Video, shelf: Shelf) -> Outcome | LeftOut:
    both = str(innermost(video.facts["multiple_objects"], "object"))
    wanted = [part.strip() for part in both.split(" and ")]
    if (nothing := unknown(shelf, *wanted)) is not None:
        return nothing
    return share_with(shelf.open("detector").detect(chosen_frames(video)), wanted)


def _spatial_relationship(video: Video, shelf: Shelf) -> Outcome | LeftOut:
    fact = innermost(video.facts["spatial_relationship"], "spatial_relationship")
    names, relation = (str(fact["object_a"]), str(fact["object_b"])), str(fact["relationship"])
    if relation not in (*_ACROSS, *_DOWN):
        raise InputError(
            f"spatial_relationship of {video.prompt!r}: {relation!r} is none of {_ACROSS + _DOWN}"
        )
    if (nothing := unknown(shelf, *names)) is not None:
        return nothing
    frames = []
    for found in shelf.open("detector").detect(chosen_frames(video)):
        boxes = [one.box for one in found if one.label in names]
        frames.append(max((side_by_side(relation, *pair) for pair in combinations(boxes, 2)), default=0.0))
    return Outcome(sum(frames) / len(frames), len(frames), {"frame_results": frames})


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


def _colours(video: Video, shelf: Shelf, published: bool) -> tuple[int, int] | LeftOut:
    """Frames in which any colour is said of the object, and in which the right one is."""
    colour = str(innermost(video.facts["color"], "color"))
    wanted = named_object(video.prompt, colour)
    if (nothing := unknown(shelf, wanted)) is not None:
        return nothing
    frames = chosen_frames(video)
    crops: list[list[Tensor]] = []
    for frame, found in zip(frames, shelf.open("detector").detect(frames), strict=True):
        if published:
            # Its captions are all those of a frame whose surest detection is the object.
            boxes = [one.box for one in found] if found and found[0].label == wanted else []
        else:
            boxes = [one.box for one in found if one.label == wanted]
        crops.append([_crop(frame, box) for box in boxes])
    captions = iter(shelf.open("captioner").captions([crop for of_frame in crops for crop in of_frame]))
    hears = _contains if published else _says
    any_colour = right_colour = 0
    for of_frame in crops:
        said = [next(captions) for _ in of_frame]
        any_colour += any(hears(sentence, name) for sentence in said for name in COLOURS)
        right_colour += any(hears(sentence, colour) for sentence in said)
    return any_colour, right_colour


def _contains(sentence: str, word: str) -> bool:
    return word in sentence


def _says(sentence: str, word: str) -> bool:
    """Whether the word is in the sentence as a word: "covered" does not say "red"."""
    return re.search(rf"\b{re.escape(word)}\b", sentence) is not None


def _color(video: Video, shelf: Shelf) -> Outcome | LeftOut:
    counts = _colours(video, shelf, published=False)
    if isinstance(counts, LeftOut):
        return counts
    share = counts[1] / counts[0] if counts[0] else 0.0
    return Outcome(share, details={"cur_success_frame_rate": share})


def _published_color(video: Video, shelf: Shelf) -> Outcome | LeftOut:
    counts = _colours(video, shelf, published=True)
    if isinstance(counts, LeftOut):
        return counts
    if not counts[0]:
        return LeftOut("no colour is said of the object, and the published figure leaves such videos out")
    share = counts[1] / counts[0]
    return Outcome(share, details={"cur_success_frame_rate": share})


DIMENSIONS = (
    Dimension(
        name="object_class",
        group="semantic",
        definition="share of 16 frames in which the named object is detected",
        needs="weights",
        score=_object_class,
        models=("detector",),
        fact="object_class",
        method=_SUBSTITUTE.format(origin="RT-DETRv2"),
    ),
    Dimension(
        name="multiple_objects",
        group="semantic",
        definition="share of 16 frames in which both named objects are detected",
        needs="weights",
        score=_multiple_objects,
        models=("detector",),
        fact="multiple_objects",
        method=_SUBSTITUTE.format(origin="RT-DETRv2"),
    ),
    Dimension(
        name="color",
        group="semantic",
        definition="frames whose caption gives the object its colour, of those whose caption gives it any",
        needs="weights",
        score=_color,
        models=("detector", "captioner"),
        fact="color",
        method="objects by RT-DETRv2 and captions of their boxes by BLIP, where VBench uses GRiT-B",
        variant="a video in which no colour is seen counts 0, and colours are heard as whole words about the "
        "object's own boxes; the published figure leaves such videos out and hears parts of words about any "
        "box of a frame whose surest detection is the object",
        compat=_published_color,
    ),
    Dimension(
        name="spatial_relationship",
        group="semantic",
        definition="best pair of the two objects a frame: 1 on the right axis, or 0.1 / IoU from 0.1 on",
        needs="weights",
        score=_spatial_relationship,
        models=("detector",),
        fact="spatial_relationship",
        method=_SUBSTITUTE.format(origin="RT-DETRv2"),
    ),
)
