"""From four losses and the designed severity to one label in 0..1.

**One scale.** Each loss x becomes a damage 1 - exp(-((x - floor) / scale)^shape). The floor is the loss of a
change just too small to be seen. Scale and shape spread the damages evenly over 0..1 over ladders of every
distortion on training contents (equipercentile equating): the worst 40 % of the clips have a damage of 0.6 or
more by each loss, so the four can be compared. A clip's damage is that of its worst aspect, a smooth maximum
of the four; a last curve puts it on the scale of the designed severity, level / 5. The numbers are
`CALIBRATION`, part of the label, fitted once by `python -m components.reward.labels.fit_calibration`.

**The label.**

    quality = 1 - visible * (severity / 2 + damage / 2)

- `damage` measures what was lost in this clip, but full-reference measures rate some contents too high and
  others too low.
- `severity` knows the order inside a ladder exactly, but level 3 of one type is not level 3 of another.
- `visible` = 1 - exp(-damage / 0.05) is near 0 where the level changes nothing that can be seen (a grey clip
  desaturated, a still clip frozen), and near 1 elsewhere.

Nothing tells which of the two errs more, so their weights are equal. Within a ladder the label never rises
with the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.reward.distortions.base import LEVELS

#: Of the label: its measures, its calibration and the formula. Anything that changes a label changes this.
VERSION = "3"
SEVERITY_WEIGHT = 0.5
#: Damage at which a change begins to be seen.
VISIBLE = 0.05


@dataclass(frozen=True)
class CalibrationCurve:
    """Damage of a loss x: 1 - exp(-((x - floor) / scale)^shape), 0 up to the floor and rising towards 1."""

    scale: float
    shape: float
    floor: float = 0.0

    def hazard(self, loss: Tensor) -> Tensor:
        """-log(1 - damage), at least 0."""
        return ((loss - self.floor).clamp_min(0.0) / self.scale) ** self.shape

    @classmethod
    def through(cls, values: np.ndarray, damages: np.ndarray, floor: float = 0.0) -> CalibrationCurve:
        """The least-squares fit, a line in doubly logarithmic coordinates, through points (loss > floor,
        damage in 0..1)."""
        across, up = np.log(values - floor), np.log(-np.log1p(-damages))
        shape, offset = np.polyfit(across, up, 1)
        return cls(scale=float(np.exp(-offset / shape)), shape=float(shape), floor=floor)


@dataclass(frozen=True)
class Calibration:
    """The fixed numbers of the label.

    Attributes:
        curves: one curve a measure, in the order of MEASURES.
        whole: the curve of the combined damage.
        power: exponent of the smooth maximum; infinity gives the maximum itself.
    """

    curves: tuple[CalibrationCurve, ...]
    whole: CalibrationCurve
    power: float = 4.0

    def combined(self, losses: Tensor) -> Tensor:
        """(..., 4) losses -> (...) smooth maximum of the hazards, before the last curve."""
        hazards = [curve.hazard(losses[..., i]) for i, curve in enumerate(self.curves)]
        return torch.stack([hazard**self.power for hazard in hazards]).sum(0) ** (1.0 / self.power)

    def damage(self, losses: Tensor) -> Tensor:
        """(..., 4) losses -> (...) damage in 0..1."""
        return 1.0 - torch.exp(-self.whole.hazard(self.combined(losses)))

    @classmethod
    def fit(cls, losses: Tensor, floors: Sequence[float]) -> Calibration:
        """The calibration of losses (N, 4) of clips at levels 1 to 5, equally many of each level and type.

        Args:
            floors: each loss of a change too small to be seen.
        """
        table = losses.double().numpy()
        curves = tuple(_equated(table[:, i], 0.0, floor) for i, floor in enumerate(floors))
        start = cls(curves, CalibrationCurve(1.0, 1.0))
        # The middle of the mildest fifth of clips is a level 1, severity 0.2; and so on.
        whole = _equated(start.combined(losses.double()).numpy(), 0.5 / LEVELS)
        return cls(curves, whole)


def _equated(values: np.ndarray, shift: float, floor: float = 0.0) -> CalibrationCurve:
    """The curve that sends quantile p of the values to damage p + shift."""
    shares = np.linspace(0.05, 0.95 - shift, 46)
    reached = np.quantile(values, shares)
    seen = reached > 2.0 * floor
    return CalibrationCurve.through(reached[seen], shares[seen] + shift, floor)


#: Fitted on 16 training clips of the miniature world and 16 of footage, 62 distortions, seed 0.
CALIBRATION = Calibration(
    curves=(
        CalibrationCurve(scale=0.6152, shape=0.9321, floor=0.0150),
        CalibrationCurve(scale=0.1201, shape=0.5112, floor=0.00019),
        CalibrationCurve(scale=0.0745, shape=0.3877, floor=0.00031),
        CalibrationCurve(scale=0.1648, shape=0.4798, floor=0.00026),
    ),
    whole=CalibrationCurve(scale=1.468, shape=1.677),
)


def severity(levels: Tensor, parts: Tensor | int = 1) -> Tensor:
    """Designed severity in 0..1 of level 0..5; a composition is worse than any of its parts alone."""
    return 1.0 - (1.0 - levels.float() / LEVELS) ** ((1 + torch.as_tensor(parts)) / 2)


def quality(similarity: Tensor, levels: Tensor, parts: Tensor | Sequence[int] | int = 1) -> Tensor:
    """The label of one ladder per row.

    Args:
        similarity: (N, K) 1 - damage against the pristine original, in the order of `levels`.
        levels: (N, K) or (K,) severity levels, rising along K.
        parts: number of distortions in each ladder's recipe: one number, or N of them.

    Returns:
        (N, K) float32 in 0..1, falling along K.
    """
    counts = torch.as_tensor(parts)
    counts = counts[:, None] if counts.ndim else counts
    lost = 1.0 - similarity
    visible = 1.0 - torch.exp(-lost / VISIBLE)
    mean = SEVERITY_WEIGHT * severity(levels, counts) + (1.0 - SEVERITY_WEIGHT) * lost
    return (1.0 - visible * mean).cummin(dim=1).values.float()
