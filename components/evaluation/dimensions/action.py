"""Does the person do what the prompt says?"""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath

import torch

from components.evaluation.dimensions.base import Dimension, LeftOut, Video, VideoScore
from components.evaluation.models import ModelStore

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


def _action(video: Video, store: ModelStore, from_name: bool = False) -> VideoScore | LeftOut:
    label = action_in_name(video.name or video.prompt) if from_name else action_of(video.prompt)
    model = store.open("action")
    if label not in model.labels:
        return LeftOut(f"the model has no action named {label!r}")
    chances = torch.sigmoid(model.logits(video.frames).double())
    top = chances.topk(min(LIKELIEST, len(chances)))
    likeliest = [
        model.labels[index]
        for chance, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        if round(chance, 4) >= CHANCE
    ]
    right = label in likeliest
    return VideoScore(float(right), details={"cor_num_per_video": int(right)})


DIMENSIONS = (
    Dimension(
        name="human_action",
        definition="the named action is among the five likeliest of Kinetics-400, with a chance >= 0.85",
        score=_action,
        models=("action",),
        method="actions by ViViT-B/16x2, where VBench uses UMT-L/16",
        variant="the action is read from the prompt; the published figure reads it from the file's name",
        compat=partial(_action, from_name=True),
    ),
)
