"""A weighted sum of rewards.

Rewards live on scales of their own, so each part is first brought to a common unit: the standard deviation of
its scores on a set of clips that is measured when the sum is made. Of a generator's samples it is the
deviation within a prompt, pooled over prompts, because clips of one prompt are what alignment compares.

    score = sum of weight * (part's score - centre) / unit

The centre, the mean over the same clips, only makes the level readable: an average clip of that set has 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, FiniteFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from components.reward.base import (
    InputSpec,
    Rating,
    Reward,
    check_clips,
    description_of,
    input_spec_of,
)
from components.runtime.errors import InputError

#: The folder of the parts inside the reward's, each a whole reward by its name.
PARTS = "parts"
#: Least degrees of freedom of a unit: from 8 clips it is known to about a quarter.
LEAST_FREEDOM = 7


@dataclass(frozen=True)
class WeightedTerm:
    """One reward of a sum.

    Attributes:
        name: its folder under parts/ and its aspect in a rating.
        weight: how many units of the sum one unit of it is worth; negative where less is better.
        centre: its mean on the clips of calibration, in its own units.
        unit: its standard deviation there, in its own units, above 0.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
    weight: FiniteFloat
    centre: FiniteFloat
    unit: Annotated[FiniteFloat, Field(gt=0)]


@dataclass(frozen=True)
class Recipe:
    """A sum: its parts, and what their units were measured on."""

    parts: Annotated[tuple[WeightedTerm, ...], Field(min_length=1)]
    calibration: dict[str, Any] = field(default_factory=dict)
    measured: bool = False

    def as_json(self) -> dict[str, Any]:
        """With the kind that `open_reward` goes by."""
        return {"kind": "weighted", **asdict(self)}


class WeightedSum:
    """See the module. Aspects are the parts' standardised scores before their weights.

    The uncertainty is that of the sum if the parts err independently: the root of the sum of
    (weight * uncertainty / unit) squared. A part without an ensemble adds nothing to it.
    """

    def __init__(self, parts: Sequence[tuple[WeightedTerm, Reward]]) -> None:
        self.parts = tuple(parts)

    @classmethod
    def load(cls, folder: str | Path, device: str, open_reward: Callable[[Path, str], Reward]) -> WeightedSum:
        """Loads what `combine` published.

        Args:
            open_reward: opens a part, as `load.open_reward`.

        Raises:
            InputError: a file is missing or not what it should be; the message names it.
        """
        folder = Path(folder)
        recipe = description_of(Recipe, folder, "a sum")
        return cls([(term, open_reward(folder / PARTS / term.name, device)) for term in recipe.parts])

    @property
    def input_spec(self) -> InputSpec:
        """The largest size that a part looks at, the smallest batch that suits one."""
        specs = [input_spec_of(reward) for _, reward in self.parts]
        return InputSpec(max(spec.short_side for spec in specs), min(spec.batch for spec in specs))

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        """See `Reward`."""
        return self.rate(frames, fps, prompts).score

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        """See `Reward`."""
        check_clips(frames, fps, prompts)
        total, variance = torch.zeros(2, len(frames), dtype=torch.float64)
        aspects = {}
        for part, reward in self.parts:
            rating = reward.rate(frames, fps, prompts)
            standard = (rating.score.double() - part.centre) / part.unit
            total += part.weight * standard
            variance += (part.weight * rating.uncertainty.double() / part.unit) ** 2
            aspects[part.name] = standard.float()
        return Rating(total.float(), variance.sqrt().float(), aspects)


def scale_of(scores: Tensor, groups: Sequence[str]) -> tuple[float, float]:
    """Centre and unit of a part: the mean, and the standard deviation within groups, pooled over them.

    Args:
        scores: (N,) of the clips of calibration.
        groups: what each clip is compared within: its prompt, or one name for all.

    Raises:
        InputError: too few clips for a deviation, or scores that do not differ.
    """
    values = scores.double()
    squares, freedom = 0.0, 0
    for group in dict.fromkeys(groups):
        inside = values[[place for place, name in enumerate(groups) if name == group]]
        squares += float((inside - inside.mean()).square().sum())
        freedom += len(inside) - 1
    if freedom < LEAST_FREEDOM:
        raise InputError(
            f"{len(values)} clips in {len(set(groups))} group(s) are too few for a unit; "
            f"{LEAST_FREEDOM + 1} in one group are the least"
        )
    unit, centre = math.sqrt(squares / freedom), float(values.mean())
    if not math.isfinite(unit) or unit <= 1e-6 * max(1.0, abs(centre)):
        raise InputError("scores that do not differ, or are not finite, have no unit")
    return centre, unit
