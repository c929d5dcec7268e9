"""Does the person do what the prompt says?"""

from __future__ import annotations

from pathlib import PurePosixPath

import torch

from components.evaluation.dimensions.base import Dimension, LeftOut, Outcome, Video
from components.evaluation.models import Shelf

#: The label must be among this many of the likeliest ...
LIKELIEST = 5
#: ... and have at least this chance by itself (sigmoid, rounded to four places).
CHANCE = 0.85
_BEFORE = "person is "


def action_of(text: str) -> str:
    """What follows "person is " in a prompt, in lower case; the whole prompt where that is not in it."""
    return text.lower().split(_BEFORE)[-1].strip().rstrip(".")


def action_in_name(name: str) -> str:
    """The label as VBench reads it from a file name: up to the first hyphen or underscore."""
    return PurePosixPath(name).name.lower().split("-")[0].split(_BEFORE)[-1].split("_")[0]


def _shown(video: Video, shelf: Shelf, label: str) -> Outcome | LeftOut:
    model = shelf.open("action")
    if label not in model.labels:
        return LeftOut(f"the model has no action named {label!r}")
    chances = torch.sigmoid(model.logits(video.frames).double())
    top = chances.topk(min(LIKELIEST, len(chances)))
    said = [
        model.labels[place]
        for chance, place in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        if round(chance, 4) >= CHANCE
    ]
    right = label in said
    return Outcome(float(right), details={"cor_num_per_video": int(right)})


def _action(video: Video, shelf: Shelf) -> Outcome | LeftOut:
    return _shown(video, shelf, action_of(video.prompt))


def _published_action(video: Video, shelf: Shelf) -> Outcome | LeftOut:
    return _shown(video, shelf, action_in_name(video.name or video.prompt))


DIMENSIONS = (
    Dimension(
        name="human_action",
        group="semantic",
        definition="the named action is among the five likeliest of Kinetics-400, with a chance >= 0.85",
        needs="weights",
        score=_action,
        models=("action",),
        method="actions by ViViT-B/16x2, where VBench uses UMT-L/16",
        variant="the action is read from the prompt; the published figure reads it from the file's name",
        compat=_published_action,
    ),
)
