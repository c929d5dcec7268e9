"""What the held-out judge measures: policy and base on the same clips of held-back prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.runtime.stats import Interval, clustered_mean


@dataclass(frozen=True)
class HeldoutReading:
    """Policy and base on the same clips, after `iteration` iterations.

    Attributes:
        prompts: id of each clip's prompt, (N,).
        scores, base_scores: (N,) each; both empty where there is no judge.
        motions, base_motions: (N,) each, see `components.alignment.candidates.pairs.motion_of`.
    """

    iteration: int
    prompts: tuple[str, ...]
    scores: tuple[float, ...]
    base_scores: tuple[float, ...]
    motions: tuple[float, ...]
    base_motions: tuple[float, ...]

    @property
    def judged(self) -> bool:
        """Whether a judge gave scores."""
        return bool(self.scores)

    @property
    def unscored(self) -> bool:
        """Whether the judge has a finite score for none of the policy's clips, where the base's has one."""
        return self.judged and not any(map(math.isfinite, _differences(self.scores, self.base_scores)))

    @property
    def difference(self) -> Interval:
        """Mean score of the policy minus the base's; there is no interval with fewer than 10 prompts."""
        return self._mean_difference(self.base_scores)

    @property
    def win(self) -> float:
        """Share of clips that score above the base's; a tie counts half."""
        finite = [d for d in _differences(self.scores, self.base_scores) if math.isfinite(d)]
        return sum((d > 0) + (d == 0) / 2 for d in finite) / len(finite)

    @property
    def motion(self) -> float:
        """Motion of the policy's clips over that of the base's."""
        base = sum(self.base_motions)
        return sum(self.motions) / base if base > 0 else 1.0

    def below(self, other: HeldoutReading) -> bool:
        """Return whether the score is lower than at another reading: the 95 % interval of the paired
        difference, clustered by prompt, lies below 0."""
        return self._mean_difference(other.scores).high < 0

    def row(self) -> dict[str, float]:
        """Return its finite figures for the training curve; those of the score only with a judge."""
        figures = {"held_out_motion": self.motion}
        if self.judged and not self.unscored:
            mean = self.difference
            figures |= {"judge_difference": mean.value, "judge_low": mean.low, "judge_high": mean.high}
            figures["judge_win"] = self.win
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> HeldoutReading:
        """Undo `as_json`, also after a JSON file."""
        lists = {name: tuple(value) for name, value in values.items() if name != "iteration"}
        return cls(int(values["iteration"]), **lists)

    def _mean_difference(self, scores: Sequence[float]) -> Interval:
        return clustered_mean(_differences(self.scores, scores), self.prompts)


def _differences(left: Sequence[float], right: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(left, right, strict=True)]
