"""Does the video show the place that the prompt names?"""

from __future__ import annotations

from components.evaluation.dimensions.base import Dimension, Video, VideoScore, share_of_frames
from components.evaluation.dimensions.objects import chosen_frames
from components.evaluation.models import ModelStore


def _scene(video: Video, store: ModelStore) -> VideoScore:
    words = str(video.fact("scene")).lower().split()
    captions = store.open("captioner").captions(list(chosen_frames(video)))
    return share_of_frames([all(word in caption for word in words) for caption in captions])


DIMENSIONS = (
    Dimension(
        name="scene",
        definition="share of 16 frames whose caption holds every word of the scene",
        score=_scene,
        models=("captioner",),
        fact="scene",
        method="captions by BLIP, where VBench uses Tag2Text",
    ),
)
