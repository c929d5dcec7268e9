"""How good single frames look: aesthetic quality and imaging quality."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from components.evaluation.dimensions.base import Dimension, Video, VideoScore
from components.evaluation.models import ModelStore
from components.evaluation.models.preprocessing import BATCH

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


def _aesthetic(video: Video, store: ModelStore) -> VideoScore:
    clip, head = store.open("clip-l14"), store.open("aesthetic")
    return VideoScore(float(head.scores(clip.features(video.frames)).double().mean()) / 10.0)


def _imaging(video: Video, store: ModelStore, ported: bool = False) -> VideoScore:
    musiq, parts = store.open("musiq"), video.frames.split(BATCH)
    scores = [float(score) for part in parts for score in musiq.scores(for_imaging(part), ported)]
    return VideoScore(sum(scores) / len(scores) / 100.0)


DIMENSIONS = (
    Dimension(
        name="aesthetic_quality",
        definition="LAION's linear aesthetic predictor on CLIP features, mean over frames, over 10",
        score=_aesthetic,
        models=("clip-l14", "aesthetic"),
    ),
    Dimension(
        name="imaging_quality",
        definition="MUSIQ's score of each frame, longer side at most 512 px, mean over frames, over 100",
        score=_imaging,
        models=("musiq",),
        variant="MUSIQ as its authors wrote it; the published figure comes from pyiqa's port, which resizes "
        "by another filter and has another GELU",
        compat=partial(_imaging, ported=True),
    ),
)
