"""Where one shot of a video ends and the next begins."""

from __future__ import annotations

from itertools import pairwise

import torch

from components.video.clip import Clip
from components.video.filters import luma
from components.video.resample import resize, window

LOOK = 32  # side in pixels of the thumbnails that are compared
NEIGHBOURS = 6  # frame steps to either side that a step is compared with
MIN_CHANGE = 0.08  # mean absolute change of luma, of 1
MIN_RATIO = 2.5  # of a step over the median of its neighbours: a fast pan is as large, but lasts


def cuts(clip: Clip) -> list[int]:
    """Indices of the frames that begin a new shot, not counting frame 0.

    A cut is one step that changes the picture far more than the steps around it. It is looked for at the
    clip's own rate: at a few frames per second every step is a large one. Slow dissolves are not found.
    """
    small = resize(clip, (LOOK, LOOK)).as_float().frames
    change = luma(small).diff(dim=0).abs().flatten(1).mean(dim=1)
    starts = []
    for step, value in enumerate(change.tolist()):
        around = torch.cat(
            [change[max(0, step - NEIGHBOURS) : step], change[step + 1 : step + 1 + NEIGHBOURS]]
        )
        usual = float(around.median()) if len(around) else value
        if value >= MIN_CHANGE and value > MIN_RATIO * usual:
            starts.append(step + 1)
    return starts


def shots(clip: Clip) -> list[Clip]:
    """The clip in pieces, one a shot, in order."""
    borders = [0, *cuts(clip), clip.num_frames]
    return [window(clip, start, end - start) for start, end in pairwise(borders)]
