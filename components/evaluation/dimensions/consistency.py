"""Does the video stay the same thing? Subject by DINO's features, background by CLIP's."""

from __future__ import annotations

import torch
from torch import Tensor

from components.evaluation.dimensions.base import Dimension, Outcome, Video
from components.evaluation.models import Shelf
from components.evaluation.models.preprocessing import BATCH, for_clip, for_dino


def consistency(features: Tensor) -> Outcome:
    """Mean over t > 0 of (max(0, cos(f_t, f_t-1)) + max(0, cos(f_t, f_0))) / 2 of unit vectors (T, D)."""
    unit = features.double()
    before = (unit[1:] * unit[:-1]).sum(dim=1).clamp(min=0.0)
    first = (unit[1:] * unit[:1]).sum(dim=1).clamp(min=0.0)
    total = float(((before + first) / 2).sum())
    steps = len(unit) - 1
    return Outcome(total / steps, steps, {"video_sim": total, "cnt_per_video": steps})


@torch.no_grad()
def _subject(video: Video, shelf: Shelf) -> Outcome:
    dino = shelf.open("dino")
    parts = [dino.features(for_dino(part)) for part in video.frames.split(BATCH)]
    return consistency(torch.cat(parts))


@torch.no_grad()
def _background(video: Video, shelf: Shelf) -> Outcome:
    clip = shelf.open("clip-b32")
    parts = [clip.features(for_clip(part, clip.side)) for part in video.frames.split(BATCH)]
    return consistency(torch.cat(parts))


_DEFINITION = (
    "cosine of each frame's {} features with those of the frame before and of the first, negative ones as 0, "
    "averaged over all frames of all videos"
)

DIMENSIONS = (
    Dimension(
        name="subject_consistency",
        group="quality",
        definition=_DEFINITION.format("DINO"),
        needs="weights",
        shortest=2,
        score=_subject,
        models=("dino",),
    ),
    Dimension(
        name="background_consistency",
        group="quality",
        definition=_DEFINITION.format("CLIP"),
        needs="weights",
        shortest=2,
        score=_background,
        models=("clip-b32",),
    ),
)
