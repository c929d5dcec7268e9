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

    ``spread`` is the reward's own doubt about this clip, in units of the reward: 0 where it tells of none.
    ``aspects`` are its further scores by name.
    """

    prompt_id: str
    index: int
    seed: int
    reward: float
    motion: float
    spread: float = 0.0
    aspects: Mapping[str, float] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """Whether it can be part of a pair: one with a reward or motion that is no number cannot."""
        return math.isfinite(self.reward) and math.isfinite(self.motion)


@dataclass(frozen=True)
class Verdict:
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


#: Every reason a verdict can have.
REASONS = ("accepted", "too_few_finite", "gap_too_small", "within_noise", "winner_too_still")
#: Clips whose motion is measured at once: as floats they take four times their memory, and more on the way.
MEASURED_AT_ONCE = 4
#: Those of groups whose candidates are too much alike for a preference; more candidates may change that.
WITHOUT_SPREAD = ("gap_too_small", "within_noise")


@torch.no_grad()
def motion_of(frames: Tensor) -> Tensor:
    """Return how much each clip moves, (B,), of uint8 frames (B, T, 3, H, W).

    It is the mean |difference| of neighbouring frames. Each frame is first brought to zero mean and unit
    deviation, so that a change of brightness or contrast does not pass for motion.
    """
    return torch.cat([_motion_of_few(few) for few in frames.split(MEASURED_AT_ONCE)])


def _motion_of_few(frames: Tensor) -> Tensor:
    grey = frames.float().mean(dim=2).flatten(2)
    spread = grey.std(dim=2, keepdim=True).clamp_min(1.0)
    normal = (grey - grey.mean(dim=2, keepdim=True)) / spread
    return (normal[:, 1:] - normal[:, :-1]).abs().mean(dim=(1, 2))


def noise_of(one: Candidate, other: Candidate) -> float:
    """Return the doubt about the difference of two rewards: the root of the sum of their squared spreads.

    A spread that is not finite, of a reward that cannot tell, counts as 0.
    """
    spreads = (c.spread if math.isfinite(c.spread) else 0.0 for c in (one, other))
    return math.hypot(*spreads)


def judge_group(
    group: Sequence[Candidate], smallest_gap: float, motion_floor: float, noise_gap: float = 0.0
) -> Verdict:
    """Return the pair a prompt's candidates give: the best against the worst by reward.

    A winner that moves less than ``motion_floor`` times its loser, or whose lead lies within the reward's
    noise, is passed over for the next best one. Ties break by index, so the verdict does not depend on the
    order in which candidates were drawn.

    Args:
        group: candidates of one prompt.
        smallest_gap: reward difference below which there is no preference.
        motion_floor: in 0..1.
        noise_gap: the gap must exceed this many times the pair's ``noise_of``.
    """
    prompt_id = group[0].prompt_id
    finite = [c for c in group if c.finite]
    if len(finite) < 2:
        return Verdict(prompt_id, None, None, 0.0, "too_few_finite")
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
            return Verdict(prompt_id, winner.index, loser.index, gap, "accepted")
    # Where nobody wins, the reason is what kept the best one from it.
    return Verdict(prompt_id, None, None, ranked[0].reward - loser.reward, reason)


def judge_iteration(
    groups: Sequence[Sequence[Candidate]], min_gap: float, motion_floor: float, noise_gap: float = 0.0
) -> list[Verdict]:
    """Judge every group of an iteration.

    ``min_gap`` is in standard deviations of the iteration's finite rewards within groups. Deviations are
    taken from each group's own mean: what prompts are worth against each other is not a preference. So it
    follows the policy as its clips grow alike; ``noise_gap`` is what the reward itself says it cannot tell.
    """
    squares, count = 0.0, 0
    for group in groups:
        rewards = [c.reward for c in group if math.isfinite(c.reward)]
        if len(rewards) > 1:
            mean = sum(rewards) / len(rewards)
            squares += sum((r - mean) ** 2 for r in rewards)
            count += len(rewards) - 1
    spread = math.sqrt(squares / count) if count else 0.0
    return [judge_group(group, min_gap * spread, motion_floor, noise_gap) for group in groups]


def count_reasons(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Return how many groups ended for each reason, every reason named."""
    found = Counter(verdict.reason for verdict in verdicts)
    return {reason: found[reason] for reason in REASONS}
