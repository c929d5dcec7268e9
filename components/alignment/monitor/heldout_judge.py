"""The held-out judge: the policy against the base on prompts that are not trained on, by a score that is not
the reward.

The prompts are held back from the training prompts; evaluation's own held-out prompts are never looked at.
Prompts and seeds are the same at every reading, and the base's clips are measured once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from components.alignment.candidates.pairs import motion_of
from components.alignment.policy import Policy
from components.corpus.prompts import Prompt
from components.corpus.world.judge import judge
from components.corpus.world.scene import parse_caption
from components.generator.generator import Generator
from components.reward.base import Reward, digest_of
from components.reward.scoring.load import open_reward
from components.runtime.artifacts.artifact import Artifact
from components.runtime.compute.distributed import Ranks, is_main_process
from components.runtime.compute.seeds import derive
from components.runtime.errors import InputError
from components.runtime.stats import FEWEST as FEWEST_CLUSTERS
from components.runtime.stats import Interval, clustered_mean

SHARE = 8
"""At most one training prompt in so many is held back."""
FEWEST = 2
"""Prompts below which none are held back."""


class ClipScorer(Protocol):
    """Scores clips, higher is better; ``name`` says what it is."""

    name: str

    def __call__(self, frames: Tensor, fps: float, prompts: Sequence[str]) -> list[float]:
        """frames uint8 (B, T, 3, H, W) -> B scores; one that is not finite counts as none."""


class WorldScorer:
    """The miniature world's exact judge: reads clips back from their pixels, 0..1."""

    name = "the miniature world's judge"

    def __call__(self, frames: Tensor, fps: float, prompts: Sequence[str]) -> list[float]:
        """See `components.corpus.world.judge`."""
        return [judge(clip).quality for clip in frames]


class RewardScorer:
    """A second reward, in its own units."""

    def __init__(self, reward: Reward, digest: str) -> None:
        self.reward, self.name = reward, f"reward {digest[:12]}"

    def __call__(self, frames: Tensor, fps: float, prompts: Sequence[str]) -> list[float]:
        """See `components.reward.base.Reward.score`."""
        return [float(value) for value in self.reward.score(frames, fps, prompts)]


def hold_back(prompts: Sequence[Prompt], clips: int, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Split training prompts into those to train on and those to judge on, each in the given order.

    As many as ``clips`` are held back, but at most one in eight; none where that leaves fewer than two. Which
    ones is drawn by name from ``seed``.
    """
    count = min(clips, len(prompts) // SHARE)
    if count < FEWEST:
        return list(prompts), []
    chosen = {p.id for p in sorted(prompts, key=lambda p: (derive(seed, "held back", p.id), p.id))[:count]}
    return [p for p in prompts if p.id not in chosen], [p for p in prompts if p.id in chosen]


def choose_judge(
    held_back: Sequence[Prompt],
    judge: Artifact | None,
    reward_digest: str,
    device: str | torch.device = "auto",
) -> ClipScorer | None:
    """Return what scores the held-out clips: ``judge`` where one is given, else the world's where all prompts
    are captions of it, else None, with a line that says so, as where no prompt is held back.

    Args:
        judge: a reward artifact other than the training reward.
        reward_digest: `components.reward.base.digest_of` the training reward.

    Raises:
        InputError: the judge is the training reward, which would call its own exploits progress; or there are
            no prompts for it.
    """
    if not held_back:
        least = FEWEST * SHARE
        if judge is not None:
            raise InputError(
                f"--judge {judge.path}: no prompts to judge on: at least {least} training prompts are needed"
            )
        _tell(f"none, as fewer than {least} training prompts leave none to hold back; nothing watches")
        return None
    if judge is not None:
        digest = digest_of({name: entry.sha256 for name, entry in judge.manifest.files.items()})
        if digest == reward_digest:
            raise InputError(
                f"--judge {judge.path}: scores as the training reward does (digest {digest[:12]}); "
                "a reward made otherwise is needed"
            )
        scorer: ClipScorer | None = RewardScorer(open_reward(judge, device), digest)
    elif all(parse_caption(prompt.text) is not None for prompt in held_back):
        scorer = WorldScorer()
    else:
        scorer = None
        _tell(
            "none, as the prompts are not the miniature world's and no --judge is given; "
            "only motion is watched"
        )
    if scorer is not None and len(held_back) < FEWEST_CLUSTERS:
        _tell(
            f"{len(held_back)} prompts are held back, and fewer than {FEWEST_CLUSTERS} show nothing: "
            "its scores are recorded, only motion can end the run"
        )
    return scorer


def _tell(line: str) -> None:
    if is_main_process():
        print(f"held-out judge: {line}", file=sys.stderr)


@dataclass(frozen=True)
class Reading:
    """Policy and base on the same clips, after ``iteration`` iterations.

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
        return self.judged and not any(map(math.isfinite, _less(self.scores, self.base_scores)))

    @property
    def difference(self) -> Interval:
        """Score of the policy less that of the base; of fewer than 10 prompts there is no interval."""
        return clustered_mean(_less(self.scores, self.base_scores), self.prompts)

    @property
    def win(self) -> float:
        """Share of clips that score above the base's, a tie counting half."""
        finite = [value for value in _less(self.scores, self.base_scores) if math.isfinite(value)]
        return sum(1.0 if value > 0 else 0.5 if value == 0 else 0.0 for value in finite) / len(finite)

    @property
    def motion(self) -> float:
        """Motion of the policy's clips over that of the base's."""
        base = sum(self.base_motions)
        return sum(self.motions) / base if base > 0 else 1.0

    def below(self, other: Reading) -> bool:
        """Whether the score is lower than at another reading, beyond what the choice of prompts explains: the
        paired difference's interval lies below 0."""
        return clustered_mean(_less(self.scores, other.scores), self.prompts).high < 0

    def row(self) -> dict[str, float]:
        """Return its figures for the training curve; those of the score only where there is a judge."""
        found = {"held_out_motion": self.motion}
        if self.judged and not self.unscored:
            difference = self.difference
            found |= {
                "judge_difference": difference.value,
                "judge_low": difference.low,
                "judge_high": difference.high,
                "judge_win": self.win,
            }
        # Of few prompts there is no interval.
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Reading:
        """What `as_json` gave, also by way of a JSON file."""
        lists = {name: tuple(value) for name, value in values.items() if name != "iteration"}
        return cls(iteration=int(values["iteration"]), **lists)


@dataclass(frozen=True)
class _Clip:
    prompt: Prompt
    seed: int


class HeldOutJudge:
    """Reads how the policy does against the base. Every process must ask; the clips are shared out."""

    def __init__(
        self,
        generator: Generator,
        held_back: Sequence[Prompt],
        scorer: ClipScorer | None,
        *,
        clips: int,
        seed: int,
        ranks: Ranks,
    ) -> None:
        """Name the clips: at least ``clips`` of them, the same number of each prompt.

        Args:
            held_back: see `hold_back`; at least two.
            scorer: see `choose_judge`; without one only motion is measured.
        """
        if len(held_back) < FEWEST:
            raise ValueError(f"{len(held_back)} held-out prompts: at least {FEWEST} are needed")
        self.generator, self.scorer, self.ranks = generator, scorer, ranks
        each = math.ceil(clips / len(held_back))
        self.clips = [
            _Clip(prompt, derive(seed, "held out", prompt.id, index))
            for prompt in held_back
            for index in range(each)
        ]
        self._base: list[tuple[float, float]] | None = None

    def read(self, policy: Policy, iteration: int) -> Reading:
        """Measure the policy as it stands after ``iteration`` iterations.

        Raises:
            InputError: the judge has no finite score for any of the base's clips.
        """
        if self._base is None:
            self._base = self._measure(policy, base=True)
        ours = self._measure(policy, base=False)
        judged = self.scorer is not None
        reading = Reading(
            iteration,
            tuple(clip.prompt.id for clip in self.clips),
            tuple(score for score, _ in ours) if judged else (),
            tuple(score for score, _ in self._base) if judged else (),
            tuple(motion for _, motion in ours),
            tuple(motion for _, motion in self._base),
        )
        if judged and not any(map(math.isfinite, reading.base_scores)):
            raise InputError(
                f"held-out judge: {self.scorer.name if self.scorer else ''} gives none of the base's "
                f"{len(self.clips)} clips a finite score"
            )
        return reading

    def state(self) -> dict[str, Any]:
        """Return the base's figures as JSON values for a checkpoint."""
        return {"base": self._base}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the base's figures of a checkpoint."""
        found = state["base"]
        self._base = None if found is None else [(score, motion) for score, motion in found]

    @torch.no_grad()
    def _measure(self, policy: Policy, *, base: bool) -> list[tuple[float, float]]:
        """Score and motion of each clip, in order."""
        mine = list(self.ranks.mine(len(self.clips)))
        found: dict[int, tuple[float, float]] = {}
        size = self.generator.settings.batch
        with policy.in_step(), policy.base() if base else nullcontext():
            for start in range(0, len(mine), size):
                places = mine[start : start + size]
                texts = [self.clips[place].prompt.text for place in places]
                frames, _ = self.generator.sample(texts, [self.clips[place].seed for place in places])
                scores = [math.nan] * len(places)
                if self.scorer is not None:
                    scores = self.scorer(frames, self.generator.fps, texts)
                found |= dict(zip(places, zip(scores, motion_of(frames).tolist(), strict=True), strict=True))
        everyone = {
            place: value for part in self.ranks.all_gather_object(found) for place, value in part.items()
        }
        return [everyone[place] for place in range(len(self.clips))]


def _less(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]
