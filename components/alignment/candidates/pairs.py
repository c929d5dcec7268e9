"""From scored candidates to preference pairs: best against worst.

Every group that gives no pair gives a reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidate:
    """One sampled clip of a prompt's group.

    Attributes:
        uncertainty: the reward's ensemble std for this clip, in its units; 0 where it gives none.
        aspects: further scores of the reward by name.
    """

    prompt_id: str
    index: int
    seed: int
    reward: float
    motion: float
    uncertainty: float = 0.0
    aspects: Mapping[str, float] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """Whether it can be part of a pair: reward and motion are finite."""
        return math.isfinite(self.reward) and math.isfinite(self.motion)


@dataclass(frozen=True)
class PairDecision:
    """What became of one prompt's group: a pair (indices of winner and loser), or the reason why not."""

    prompt_id: str
    winner: int | None
    loser: int | None
    gap: float
    reason: str

    @property
    def accepted(self) -> bool:
        """Whether the group gave a pair."""
        return self.reason == "accepted"


#: Every reason that a decision can have.
REASONS = ("accepted", "too_few_finite", "gap_too_small", "within_noise", "winner_too_still")
#: Clips whose motion is measured at once: as floats they take over four times their memory.
MEASURED_AT_ONCE = 4
#: Reasons of groups whose candidates are too similar for a preference; more candidates may change that.
WITHOUT_SPREAD = ("gap_too_small", "within_noise")


@torch.no_grad()
def motion_of(frames: Tensor) -> Tensor:
    """Return the motion (B,) of uint8 frames (B, T, 3, H, W): the mean |difference| of neighbouring frames.

    Each frame is first normalised to zero mean and unit deviation, so that a change of brightness or contrast
    does not count as motion.
    """
    return torch.cat([_motion_of_few(few) for few in frames.split(MEASURED_AT_ONCE)])


def _motion_of_few(frames: Tensor) -> Tensor:
    grey = frames.float().mean(dim=2).flatten(2)
    deviation = grey.std(dim=2, keepdim=True).clamp_min(1.0)
    normal = (grey - grey.mean(dim=2, keepdim=True)) / deviation
    return (normal[:, 1:] - normal[:, :-1]).abs().mean(dim=(1, 2))


def noise_of(one: Candidate, other: Candidate) -> float:
    """Return the uncertainty of a reward gap: the root of the sum of both clips' squared ones.

    One that is not finite counts as 0.
    """
    return math.hypot(*(c.uncertainty for c in (one, other) if math.isfinite(c.uncertainty)))


def pair_group(
    group: Sequence[Candidate], smallest_gap: float, motion_floor: float, noise_gap: float = 0.0
) -> PairDecision:
    """Return the pair a prompt's candidates give: the best against the worst by reward.

    A winner that moves less than `motion_floor` times its loser, or whose lead is within the reward's
    noise, is skipped for the next best one. Ties break by index: the sampling order does not matter.

    Args:
        group: candidates of one prompt.
        smallest_gap: reward difference below which there is no preference.
        motion_floor: in 0..1.
        noise_gap: the gap must exceed this many times the pair's `noise_of`.
    """
    prompt_id = group[0].prompt_id
    finite = [c for c in group if c.finite]
    if len(finite) < 2:
        return PairDecision(prompt_id, None, None, 0.0, "too_few_finite")
    ranked = sorted(finite, key=lambda c: (-c.reward, c.index))
    loser = ranked[-1]
    reason = ""
    for winner in ranked[:-1]:
        gap = winner.reward - loser.reward
        if gap <= smallest_gap or gap <= 0:
            reason = reason or "gap_too_small"
            break
        if gap <= noise_gap * noise_of(winner, loser):
            reason = reason or "within_noise"
        elif winner.motion < motion_floor * loser.motion:
            reason = reason or "winner_too_still"
        else:
            return PairDecision(prompt_id, winner.index, loser.index, gap, "accepted")
    # Where nobody wins, the reason is what kept the best one from it.
    return PairDecision(prompt_id, None, None, ranked[0].reward - loser.reward, reason)


def pair_groups(
    groups: Sequence[Sequence[Candidate]], min_gap: float, motion_floor: float, noise_gap: float = 0.0
) -> list[PairDecision]:
    """Pair every group of an iteration.

    `min_gap` is in standard deviations of the iteration's finite rewards within groups, from each group's
    own mean: a difference between prompts is not a preference. So it shrinks as the policy's clips become
    similar; `noise_gap` is in units of the reward's own uncertainty.
    """
    squares, count = 0.0, 0
    for group in groups:
        rewards = [c.reward for c in group if math.isfinite(c.reward)]
        if len(rewards) > 1:
            mean = sum(rewards) / len(rewards)
            squares += sum((r - mean) ** 2 for r in rewards)
            count += len(rewards) - 1
    deviation = math.sqrt(squares / count) if count else 0.0
    return [pair_group(group, min_gap * deviation, motion_floor, noise_gap) for group in groups]


def count_reasons(decisions: Sequence[PairDecision]) -> dict[str, int]:
    """Return how many groups ended for each reason, every reason named."""
    counts = Counter(decision.reason for decision in decisions)
    return {reason: counts[reason] for reason in REASONS}
