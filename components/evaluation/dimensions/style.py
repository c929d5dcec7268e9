"""How well text and video agree as a whole: appearance style, temporal style, overall consistency."""

from __future__ import annotations

import torch

from components.evaluation.dimensions.base import Dimension, Outcome, Video, innermost
from components.evaluation.models import Shelf
from components.evaluation.models.preprocessing import BATCH, for_clip_as_pictures

_METHOD = "video and text by VideoPrism LvT, where VBench uses ViCLIP"


def _appearance(video: Video, shelf: Shelf) -> Outcome:
    text = str(innermost(video.facts["appearance_style"], "appearance_style"))
    clip = shelf.open("clip-b32")
    parts = [clip.features(for_clip_as_pictures(part, clip.side)) for part in video.frames.split(BATCH)]
    features = torch.cat(parts).double()
    logits = clip.scale * (features @ clip.text(text).double())
    frames = (logits / 100.0).tolist()
    value = sum(frames) / len(frames)
    return Outcome(value, len(frames), {"frame_results": frames, "cur_sim": frames[-1]})


def _agreement(video: Video, shelf: Shelf) -> Outcome:
    return Outcome(shelf.open("video-text").cosine(video.frames, video.prompt))


DIMENSIONS = (
    Dimension(
        name="appearance_style",
        group="semantic",
        definition="CLIP's logit of each frame and the text of the style, over 100, averaged over all frames",
        needs="weights",
        score=_appearance,
        models=("clip-b32",),
        fact="appearance_style",
    ),
    Dimension(
        name="temporal_style",
        group="semantic",
        definition="cosine of the video and the prompt, whose text names a camera move or a tempo",
        needs="weights",
        score=_agreement,
        models=("video-text",),
        fact="temporal_style",
        method=_METHOD,
    ),
    Dimension(
        name="overall_consistency",
        group="semantic",
        definition="cosine of the video and the prompt",
        needs="weights",
        score=_agreement,
        models=("video-text",),
        method=_METHOD,
    ),
)
