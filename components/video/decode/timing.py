"""From time stamps to one constant frame rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Gaps between frames further than this from the usual gap (as a share of it) make a file variable-rate.
VARIABLE_RATE_TOLERANCE = 0.25
# A header's rate this near to the measured one is the exact one: stamps are rounded to the container's clock.
SAME_RATE = 0.01


@dataclass(frozen=True)
class Timing:
    """When the frames of a video are shown, at one constant rate.

    Attributes:
        fps: frames per second.
        steps: for each decoded frame the step of that rate at which it appears, ascending; None where every
            frame has a step of its own.
    """

    fps: float
    steps: NDArray[np.float64] | None = None

    def length(self, decoded: int) -> int:
        """Frames of the video at the constant rate, of so many that were decoded."""
        return decoded if self.steps is None else int(self.steps[-1]) + 1

    def shown(self, decoded: int, most: int | None = None) -> NDArray[np.int64]:
        """The index of the frame on screen at each step, for `most` steps at most.

        A frame stays until the next one's step, so a hold repeats it; of frames on one step the last counts.
        """
        grid = np.arange(min(self.length(decoded), most or self.length(decoded)))
        return grid if self.steps is None else np.searchsorted(self.steps, grid, side="right") - 1


def timing_of(times: Sequence[float | None], declared: float | None, container: str = "") -> Timing | None:
    """The constant rate of a video whose gaps may vary.

    The rate of a variable one is that of its usual gap, the median, and not the average: one long hold must
    not thin out the motion around it.

    Args:
        times: of each frame, in seconds.
        declared: by the header, frames per second.
        container: FFmpeg's name of the format. AVI has no stamps, only places: a piece cut from a longer file
            holds its first frame for all the time before, which was never shown.

    Returns:
        None where neither stamps nor header give a rate.
    """
    known = np.asarray([time for time in times if time is not None], dtype=float)
    gaps = np.diff(known)
    # Old containers store the order of decoding and call it time, and joined files begin anew: such stamps
    # run backwards and say nothing.
    if len(known) != len(times) or len(known) < 2 or not np.all(gaps > 0):
        return None if declared is None else Timing(declared)
    usual = float(np.quantile(gaps, 0.5, method="lower"))
    if container == "avi" and gaps[0] > usual:
        known[0] = known[1] - usual
        gaps[0] = usual
    near = np.abs(gaps / usual - 1) <= VARIABLE_RATE_TOLERANCE
    # The mean of the usual gaps: the median alone is as coarse as the container's clock.
    fps = 1 / float(gaps[near].mean())
    if declared is not None and abs(declared - fps) <= SAME_RATE * fps:
        fps = declared
    if near.all():
        return Timing(fps)
    return Timing(fps, np.floor((known - known[0]) * fps + 0.5))
