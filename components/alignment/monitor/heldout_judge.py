"""The held-out judge: the policy against the base on prompts that are not trained on, by a score other than
the reward.

The prompts are held back from the training prompts; evaluation's own held-out prompts are never looked at.
Prompts and seeds are the same at every reading, and the base's clips are measured once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from components.alignment.candidates.pairs import motion_of
from components.alignment.monitor.reading import HeldoutReading
from components.alignment.policy import Policy
from components.corpus.prompts import Prompt
from components.corpus.world.judge import judge
from components.corpus.world.scene import parse_caption
from components.generator.generator import Generator
from components.reward.base import digest_of
from components.reward.scoring.load import open_reward
from components.runtime.artifacts.artifact import Artifact
from components.runtime.compute.distributed import Ranks, is_main_process
from components.runtime.compute.seeds import derive
from components.runtime.errors import InputError
from components.runtime.stats import FEWEST as FEWEST_CLUSTERS

#: At most one training prompt in so many is held back.
SHARE = 8
#: Prompts below which none are held back.
FEWEST = 2


@dataclass(frozen=True)
class ClipScorer:
    """Scores clips.

    Attributes:
        name: for messages.
        score: frames uint8 (B, T, 3, H, W), their frame rate and prompts -> B scores, higher is better; one
            that is not finite counts as none.
    """

    name: str
    score: Callable[[Tensor, float, Sequence[str]], Sequence[float]]


#: The oracle judge of the miniature world: reads clips back from their pixels, 0..1.
WORLD_SCORER = ClipScorer(
    "the oracle judge", lambda frames, fps, prompts: [judge(clip).quality for clip in frames]
)


def hold_back(prompts: Sequence[Prompt], clips: int, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Split training prompts into those to train on and those to judge on, each in the given order.

    As many as `clips` are held back, but at most one in eight; none where that leaves fewer than two. The
    choice depends on `seed` and the prompts' names.
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
    """Return what scores the held-out clips: `judge` where there is one, else the oracle judge
    where all prompts are captions of it.

    Returns None, with a printed reason, in all other cases and where no prompt is held back.

    Args:
        judge: a reward artifact other than the training reward.
        reward_digest: `components.reward.base.digest_of` the training reward.

    Raises:
        InputError: the judge is the training reward, which would count its own exploits as progress; or there
            are no prompts for it.
    """
    if not held_back:
        least = FEWEST * SHARE
        if judge is not None:
            raise InputError(
                f"--judge {judge.path}: no prompts to judge on: at least {least} training prompts are needed"
            )
        _log(f"none, as fewer than {least} training prompts leave none to hold back; nothing is watched")
        return None
    if judge is not None:
        digest = digest_of({name: entry.sha256 for name, entry in judge.manifest.files.items()})
        if digest == reward_digest:
            raise InputError(
                f"--judge {judge.path}: scores as the training reward does (digest {digest[:12]}); "
                "another reward is needed"
            )
        reward = open_reward(judge, device)
        scorer: ClipScorer | None = ClipScorer(
            f"reward {digest[:12]}", lambda frames, fps, prompts: reward.score(frames, fps, prompts).tolist()
        )
    elif all(parse_caption(prompt.text) is not None for prompt in held_back):
        scorer = WORLD_SCORER
    else:
        scorer = None
        _log(
            "none, as the prompts are not the miniature world's and no --judge is given; "
            "only motion is watched"
        )
    if scorer is not None and len(held_back) < FEWEST_CLUSTERS:
        _log(
            f"{len(held_back)} prompts are held back, too few for an interval (minimum {FEWEST_CLUSTERS}): "
            "its scores are recorded, only motion can end the run"
        )
    return scorer


def _log(line: str) -> None:
    if is_main_process():
        print(f"held-out judge: {line}", file=sys.stderr)


class HeldOutJudge:
    """Measures the policy against the base.

    Every process calls `read`, and measures its share of the clips.

    Attributes:
        clips: prompt and sampling seed of each clip.
    """

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
        """Name the clips: at least `clips` of them, the same number for each prompt.

        Args:
            held_back: see `hold_back`; at least two.
            scorer: see `choose_judge`; without one only motion is measured.
        """
        if len(held_back) < FEWEST:
            raise ValueError(f"{len(held_back)} held-out prompts: at least {FEWEST} are needed")
        self.generator, self.scorer, self.ranks = generator, scorer, ranks
        each = math.ceil(clips / len(held_back))
        self.clips = [
            (prompt, derive(seed, "held out", prompt.id, index))
            for prompt in held_back
            for index in range(each)
        ]
        self._base: list[tuple[float, float]] | None = None

    def read(self, policy: Policy, iteration: int) -> HeldoutReading:
        """Measure the policy as it stands after `iteration` iterations.

        Raises:
            InputError: the judge has no finite score for any of the base's clips.
        """
        if self._base is None:
            self._base = self._measure(policy, base=True)
        aligned = self._measure(policy, base=False)
        judged = self.scorer is not None
        reading = HeldoutReading(
            iteration,
            tuple(prompt.id for prompt, _ in self.clips),
            tuple(score for score, _ in aligned) if judged else (),
            tuple(score for score, _ in self._base) if judged else (),
            tuple(motion for _, motion in aligned),
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
        self._base = state["base"] and [(score, motion) for score, motion in state["base"]]

    @torch.no_grad()
    def _measure(self, policy: Policy, *, base: bool) -> list[tuple[float, float]]:
        """Return score and motion of each clip, in order."""
        mine = list(self.ranks.mine(len(self.clips)))
        measured: dict[int, tuple[float, float]] = {}
        size = self.generator.settings.batch
        with policy.uneven_inputs(), policy.base() if base else nullcontext():
            for start in range(0, len(mine), size):
                places = mine[start : start + size]
                prompts, seeds = zip(*(self.clips[place] for place in places), strict=True)
                texts = [prompt.text for prompt in prompts]
                frames, _ = self.generator.sample(texts, seeds)
                scores: Sequence[float] = [math.nan] * len(places)
                if self.scorer is not None:
                    scores = self.scorer.score(frames, self.generator.fps, texts)
                pairs = zip(scores, motion_of(frames).tolist(), strict=True)
                measured.update(zip(places, pairs, strict=True))
        parts = self.ranks.all_gather_object(measured)
        everyone = {place: pair for part in parts for place, pair in part.items()}
        return [everyone[place] for place in range(len(self.clips))]
