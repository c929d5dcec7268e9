"""How good single frames look: aesthetic quality and imaging quality."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from components.evaluation.dimensions.base import Dimension, Outcome, Video
from components.evaluation.models import Shelf
from components.evaluation.models.preprocessing import BATCH, for_clip

#: Larger pictures are brought to this longer side (px) before their quality is judged.
LONGEST = 512


def for_imaging(frames: Tensor) -> Tensor:
    """uint8 (T, 3, H, W) to 0..1, the longer side at most 512 px, without smoothing before shrinking."""
    height, width = int(frames.shape[-2]), int(frames.shape[-1])
    x = frames.float()
    if max(height, width) > LONGEST:
        scale = LONGEST / max(height, width)
        x = F.interpolate(x, (int(scale * height), int(scale * width)), mode="bilinear", align_corners=False)
    return x / 255.0


def _aesthetic(video: Video, shelf: Shelf) -> Outcome:
    clip, head = shelf.open("clip-l14"), shelf.open("aesthetic")
    parts = [clip.features(for_clip(part, clip.side)) for part in video.frames.split(BATCH)]
    scores = head.scores(torch.cat(parts))
    return Outcome(float(scores.double().mean()) / 10.0)


def _imaging(video: Video, shelf: Shelf, ported: bool = False) -> Outcome:
    musiq, parts = shelf.open("musiq"), video.frames.split(BATCH)
    scores = [float(score) for part in parts for score in musiq.scores(for_imaging(part), ported)]
    return Outcome(sum(scores) / len(scores) / 100.0)


def _imaging_ported(video: Video, shelf: Shelf) -> Outcome:
    return _imaging(video, shelf, ported=True)


DIMENSIONS = (
    Dimension(
        name="aesthetic_quality",
        group="quality",
        definition="LAION's linear aesthetic predictor on CLIP features, mean over frames, over 10",
        needs="weights",
        score=_aesthetic,
        models=("clip-l14", "aesthetic"),
    ),
    Dimension(
        name="imaging_quality",
        group="quality",
        definition="MUSIQ's score of each frame, longer side at most 512 px, mean over frames, over 100",
        needs="weights",
        score=_imaging,
        models=("musiq",),
        variant="MUSIQ as its authors wrote it; the published figure comes from pyiqa's port, which resizes "
        "by another filter and has another GELU",
        compat=_imaging_ported,
    ),
)
