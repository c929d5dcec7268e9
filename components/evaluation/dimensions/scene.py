"""Does the video show the place that the prompt names?"""

from __future__ import annotations

from components.evaluation.dimensions.base import Dimension, Outcome, Video, innermost
from components.evaluation.dimensions.objects import chosen_frames
from components.evaluation.models import Shelf


def _scene(video: Video, shelf: Shelf) -> Outcome:
    words = str(innermost(video.facts["scene"], "scene")).lower().split()
    captions = shelf.open("captioner").captions(list(chosen_frames(video)))
    there = sum(all(word in caption for word in words) for caption in captions)
    counts = {"success_frame_count": there, "frame_count": len(captions)}
    return Outcome(there / len(captions), len(captions), counts)


DIMENSIONS = (
    Dimension(
        name="scene",
        group="semantic",
        definition="share of 16 frames whose caption holds every word of the scene",
        needs="weights",
        score=_scene,
        models=("captioner",),
        fact="scene",
        method="captions by BLIP, where VBench uses Tag2Text",
    ),
)
