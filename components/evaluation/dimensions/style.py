"""How well text and video agree as a whole: appearance style, temporal style, overall consistency."""

from __future__ import annotations

from components.evaluation.dimensions.base import Dimension, Video, VideoScore
from components.evaluation.models import ModelStore

_METHOD = "video and text by VideoPrism LvT, where VBench uses ViCLIP"


def _appearance(video: Video, store: ModelStore) -> VideoScore:
    clip, text = store.open("clip-b32"), str(video.fact("appearance_style"))
    features = clip.features(video.frames, pillow=True).double()
    logits = clip.scale * (features @ clip.text(text).double())
    frames = (logits / 100.0).tolist()
    value = sum(frames) / len(frames)
    return VideoScore(value, len(frames), {"frame_results": frames, "cur_sim": frames[-1]})


def _agreement(video: Video, store: ModelStore) -> VideoScore:
    return VideoScore(store.open("video-text").cosine(video.frames, video.prompt))


DIMENSIONS = (
    Dimension(
        name="appearance_style",
        definition="CLIP's logit of each frame and the text of the style, over 100, averaged over all frames",
        score=_appearance,
        models=("clip-b32",),
        fact="appearance_style",
    ),
    Dimension(
        name="temporal_style",
        definition="cosine of the video and the prompt, whose text names a camera move or a tempo",
        score=_agreement,
        models=("video-text",),
        fact="temporal_style",
        method=_METHOD,
    ),
    Dimension(
        name="overall_consistency",
        definition="cosine of the video and the prompt",
        score=_agreement,
        models=("video-text",),
        method=_METHOD,
    ),
)
