"""Does the video stay the same thing? Subject by DINO's features, background by CLIP's."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from components.evaluation.dimensions.base import Dimension, Video, VideoScore
from components.evaluation.models import ModelStore


def consistency(features: Tensor) -> VideoScore:
    """Mean over t > 0 of (max(0, cos(f_t, f_t-1)) + max(0, cos(f_t, f_0))) / 2 of unit vectors (T, D)."""
    unit = features.double()
    before = (unit[1:] * unit[:-1]).sum(dim=1).clamp(min=0.0)
    first = (unit[1:] * unit[:1]).sum(dim=1).clamp(min=0.0)
    total = float(((before + first) / 2).sum())
    steps = len(unit) - 1
    return VideoScore(total / steps, steps, {"video_sim": total, "cnt_per_video": steps})


def _by_features_of(model: str, video: Video, store: ModelStore) -> VideoScore:
    return consistency(store.open(model).features(video.frames))


DIMENSIONS = tuple(
    Dimension(
        name=f"{part}_consistency",
        definition=f"cosine of each frame's {title} features with those of the frame before and of the "
        "first, negative ones as 0, averaged over all frames of all videos",
        shortest=2,
        score=partial(_by_features_of, model),
        models=(model,),
    )
    for part, title, model in (("subject", "DINO", "dino"), ("background", "CLIP", "clip-b32"))
)
