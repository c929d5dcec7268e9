"""Training a reward further on the policy's own samples, so that it sees damage as the policy moves.

A ladder can stand on any clip: a sample with more flicker is worse than the sample itself. A refresh trains
for a few steps on ladders over new samples, where only the order counts, mixed with as many old ladders and
their labels, so that nothing is forgotten. A version is adopted only if it is no worse on held-out content.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from components.reward.base import Reward, digest_of_folder, read_config
from components.reward.card import gate
from components.reward.card.agreement import measure_column
from components.reward.card.card import Card
from components.reward.card.write import write_card
from components.reward.ladders.ladder import Ladders, join, shuffled
from components.reward.ladders.plan import ShardPlan
from components.reward.ladders.replay import HELDOUT, REPLAY, Kept, open_kept
from components.reward.ladders.sources import Pool, SourceClips
from components.reward.model.network import RewardNet
from components.reward.model.training import Diverged, train
from components.reward.params import RewardParams
from components.reward.refresh.adoption import compared, objections
from components.reward.refresh.recheck import recheck, score_ladders
from components.reward.refresh.versions import RewardVersion, judging
from components.reward.scoring.trained import TrainedReward
from components.runtime.artifacts.artifact import Artifact
from components.runtime.compute.seeds import derive
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.io.files import replace_dir
from components.runtime.params import validated

#: Share of the new samples' contents on which a version is compared with the one before, not trained.
HELD_SHARE = 0.25


@dataclass(frozen=True)
class Effort:
    """What one refresh costs: fixed numbers, never seconds.

    Attributes:
        ladders: on new samples, to train on.
        compared: on held-out new samples, to measure on.
        steps: of the optimiser.
        pace: its peak learning rate, as a share of the one that the reward was trained with.
    """

    ladders: int = 192
    compared: int = 64
    steps: int = 100
    pace: float = 0.5


@dataclass(frozen=True)
class Samples:
    """The policy's clips: uint8 (N, T, 3, H, W) in the reward's geometry, and the prompt of each."""

    frames: Tensor
    contents: tuple[str, ...]

    def of(self, contents: Sequence[str]) -> SourceClips:
        """Those of some contents."""
        rows = [row for row, name in enumerate(self.contents) if name in contents]
        return SourceClips(self.frames[rows], [self.contents[row] for row in rows])


class Refresher:
    """Makes versions of one reward."""

    def __init__(
        self, first: TrainedReward, params: RewardParams, kept: Kept, effort: Effort = Effort()
    ) -> None:
        """Args:
        first: version 0.
        params: those that it was made with.
        kept: what it kept of its training and its card.
        """
        self.first, self.params, self.kept, self.effort = first, params, kept, effort
        self._standard: Card | None = None

    @classmethod
    def open(cls, artifact: Artifact, reward: Reward) -> Refresher:
        """For a reward artifact and what was opened of it.

        Raises:
            InputError: this reward cannot be trained further; the message says why.
        """
        if not isinstance(reward, TrainedReward):
            kind = read_config(artifact.path).get("kind")
            raise InputError(
                f"{artifact.path}: a reward of kind {kind} cannot be refreshed, only one that was trained "
                "here on ladders; allowed is alignment.refresh_reward_every = 0"
            )
        if reward.network.backbone is not None:
            raise InputError(
                f"{artifact.path}: a reward with a backbone cannot be refreshed, as it keeps none of the "
                "pictures that its training needs; allowed is alignment.refresh_reward_every = 0"
            )
        missing = [name for name in (REPLAY, HELDOUT) if name not in artifact.manifest.files]
        if missing:
            raise InputError(
                f"{artifact.path}: cannot be refreshed without {' and '.join(missing)}; make the reward "
                "again: python -m components.reward run"
            )
        kept = open_kept(artifact.path)
        if kept.replay.statistics.shape[-1] != reward.network.statistics:
            raise InputError(
                f"{artifact.file(REPLAY)}: {kept.replay.statistics.shape[-1]} statistics, "
                f"but its reward reads {reward.network.statistics}"
            )
        try:
            params = validated(RewardParams, artifact.manifest.params, "reward")
        except InputError as error:
            raise InputError(
                f"{artifact.path}: made with params of another version of the code ({error}); to refresh it, "
                "make it again: python -m components.reward run"
            ) from error
        return cls(reward, params, kept)

    def fitted(self, frames: Tensor, fps: float) -> Tensor:
        """uint8 clips (N, T, 3, H, W) in the reward's geometry; see `ClipFormat.fit`."""
        return self.first.geometry.fit(frames, fps)

    def refresh(
        self,
        folder: Path,
        versions: Sequence[RewardVersion],
        current: TrainedReward,
        samples: Samples,
        iteration: int,
    ) -> tuple[RewardVersion, TrainedReward]:
        """Make the next version and decide whether it is adopted.

        A function of the run's seed, the version's number, the current version and the samples alone.

        Args:
            folder: where the version is put, into `v<number>`, if it is adopted.
            versions: all there were; the last adopted is `current`.
            samples: the policy's.
            iteration: of the alignment.

        Returns:
            The version, and the reward that scores from now on: its own, or `current`.
        """
        number = len(versions)
        seed = derive(self.params.run.seed, "reward refresh", number)
        record = partial(
            RewardVersion, number, parent=judging(versions).number, iteration=iteration,
            steps=self.effort.steps,
        )  # fmt: skip
        new, held = self._split(samples, seed)
        try:
            network = self._trained(current, new, number, seed)
        except Diverged as error:
            # There is no new version; the alignment goes on with the current one.
            return record(digest="", adopted=False, reasons=(str(error),)), current
        reward = TrainedReward(network, current.geometry, current.device)
        card = self._recheck(reward)
        if self._standard is None:
            self._standard = self._recheck(self.first)
        ordered = self._ordered(current, reward, held, seed)
        comparisons = compared(self._standard, card, self.params.gate, ordered)
        reasons = objections(comparisons)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".version-", dir=folder) as temporary:
            aside = Path(temporary) / "made"
            aside.mkdir()
            reward.save(aside, self.params.network)
            version = record(
                digest=digest_of_folder(aside), adopted=not reasons, reasons=tuple(reasons),
                checks={figure.name: figure.as_json() for figure in comparisons}, metrics=card.metrics(),
            )  # fmt: skip
            if version.adopted:
                card.gate = gate.decide(card, self.params.gate)
                write_card(aside, card, _about(version, missed=not card.gate.passed))
                replace_dir(aside, folder / version.folder)
        return version, reward if version.adopted else current

    def _split(self, samples: Samples, seed: int) -> tuple[SourceClips, SourceClips]:
        """Clips to train on and clips to compare versions on, apart by content; with one content none of the
        latter."""
        names = list(dict.fromkeys(samples.contents))
        order = [names[place] for place in shuffled(len(names), seed, "held-out samples")]
        count = max(1, round(HELD_SHARE * len(names))) if len(names) > 1 else 0
        return samples.of(order[count:]), samples.of(order[:count])

    def _ladders(self, clips: SourceClips, count: int, seed: int) -> Ladders:
        """Unlabelled ladders on these clips, of the types that the reward may learn from."""
        plan = ShardPlan((Pool("policy", clips, count, False),), self.params.ladders, seed)
        return join([plan.build(shard) for shard in range(plan.shards)])

    def _trained(self, current: TrainedReward, clips: SourceClips, number: int, seed: int) -> RewardNet:
        """The current network after some more steps; half of every batch, on average, is old material."""
        fresh = self._ladders(clips, self.effort.ladders, seed)
        old = self.kept.replay
        rows = torch.arange(max(len(fresh), len(old)))
        mixed = join([fresh.take(rows % len(fresh)), old.take(rows % len(old))])
        training = self.params.training.model_copy(
            update={
                "steps": self.effort.steps,
                "learning_rate": self.effort.pace * self.params.training.learning_rate,
                "warmup": self.effort.steps // 10,
            }
        )
        params = self.params.model_copy(
            update={
                "training": training,
                "network": current.params,
                "run": self.params.run.model_copy(update={"seed": seed}),
            }
        )
        # Short enough to be done again: it is never saved half-way.
        network, _ = train(
            [mixed], params, checkpoints=None, stop=StopSignal(), device=current.device,
            initial=current.network,
        )  # fmt: skip
        return network

    def _recheck(self, scorer: TrainedReward) -> Card:
        return recheck(scorer.score_prepared, self.kept, self.params.ladders.heldout_types)

    def _ordered(
        self, current: TrainedReward, made: TrainedReward, held: SourceClips, seed: int
    ) -> tuple[float | None, float | None] | None:
        """Share of pairs in the right order on ladders over held-out samples, by both; None without any."""
        if not len(held):
            return None
        ladders = self._ladders(held, self.effort.compared, derive(seed, "compared"))
        was, now = (
            measure_column(score_ladders(reward.score_prepared, ladders), ladders).pairs_ordered
            for reward in (current, made)
        )
        return was, now


def _about(version: RewardVersion, missed: bool) -> str:
    about = (
        f"Version {version.number}, trained on from version {version.parent} for {version.steps} steps in "
        f"iteration {version.iteration} of an alignment, and **adopted**."
    )
    if missed:
        about += " Where it misses its gate, it lies within the margin of version 0 on the same clips."
    return about
