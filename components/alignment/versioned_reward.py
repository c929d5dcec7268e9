"""The reward that scores at present: its versions, when and how it is refreshed, and restored after a resume.

Pairs in the ledger keep the version that scored them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.alignment.candidates.rollout import Group
from components.alignment.params import AlignmentParams
from components.reward.base import Reward, digest_of_folder
from components.reward.refresh.refresher import Refresher, Samples
from components.reward.refresh.versions import RewardVersion, judging, write_versions
from components.reward.scoring.trained import TrainedReward
from components.runtime.compute.distributed import Ranks
from components.runtime.errors import InputError


@dataclass(frozen=True)
class RewardSchedule:
    """When the reward is refreshed: every `every` updates (0: never), but not after the last iteration."""

    every: int
    iterations: int

    @classmethod
    def of(cls, params: AlignmentParams) -> RewardSchedule:
        """Return the schedule that the params ask for."""
        return cls(params.refresh_reward_every * params.reference_sync_every, params.iterations)

    def due(self, iteration: int, before: int, after: int) -> bool:
        """Return whether a refresh falls between two counts of updates, in an iteration."""
        last = iteration + 1 >= self.iterations
        return self.every > 0 and not last and after // self.every > before // self.every


class VersionedReward:
    """A reward and its versions, the same in every process."""

    def __init__(
        self, reward: Reward, digest: str, folder: Path, ranks: Ranks, refresher: Refresher | None = None
    ) -> None:
        """Start with version 0.

        Args:
            reward: what the reward step published, opened.
            digest: its `components.reward.base.digest_of`.
            folder: where the main process puts adopted versions, each in `v<number>`.
            ranks: the processes that align together.
            refresher: makes further versions; None keeps this one.
        """
        self.reward, self.folder, self.ranks, self.refresher = reward, folder, ranks, refresher
        self.versions = [RewardVersion(0, digest)]

    @property
    def version(self) -> RewardVersion:
        """The version that scores now."""
        return judging(self.versions)

    def keep(self, frames: Tensor, fps: float) -> Tensor:
        """Return clips, uint8 (N, T, 3, H, W), in the reward's geometry, as `refresh` needs them."""
        assert self.refresher is not None
        return self.refresher.fitted(frames, fps)

    def refresh(self, groups: Sequence[Group], iteration: int) -> None:
        """Make the next version on all processes' clips together, and use it if it is adopted.

        The main process trains while the others wait for its weights.

        Args:
            groups: this process's, with the frames that were kept.
            iteration: the one that sampled them.
        """
        assert self.refresher is not None and isinstance(self.reward, TrainedReward)
        mine = {g.prompt.id: g.frames for g in groups if g.frames is not None}
        clips = {name: frames for part in self.ranks.all_gather_object(mine) for name, frames in part.items()}
        made: tuple[dict[str, Any], dict[str, Tensor] | None] | None = None
        if self.ranks.is_main:
            # Sorted: the order must not depend on which process sampled what.
            names = sorted(clips)
            samples = Samples(
                torch.cat([clips[name] for name in names]),
                tuple(name for name in names for _ in range(len(clips[name]))),
            )
            version, scorer = self.refresher.refresh(
                self.folder, self.versions, self.reward, samples, iteration
            )
            state = {name: value.cpu() for name, value in scorer.network.own_state().items()}
            made = version.as_json(), state if version.adopted else None
        made = self.ranks.broadcast_object(made)
        assert made is not None
        self.versions.append(RewardVersion.of(made[0]))
        if made[1] is not None:
            network = deepcopy(self.reward.network)
            network.load_own_state(made[1])
            self.reward = TrainedReward(network, self.reward.geometry, self.reward.device)

    def state(self) -> list[dict[str, Any]]:
        """Return the versions so far as JSON values for a checkpoint."""
        return [version.as_json() for version in self.versions]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Take the versions of a checkpoint; the weights of the current one are in the folder.

        Raises:
            InputError: they are not the weights that the checkpoint names.
        """
        self.versions = [RewardVersion.of(values) for values in state]
        if self.version.number == 0:
            return
        assert isinstance(self.reward, TrainedReward)
        folder = self.folder / self.version.folder
        if not folder.is_dir() or digest_of_folder(folder) != self.version.digest:
            raise InputError(
                f"{folder}: not version {self.version.number} of the reward that the checkpoint names; "
                f"remove {self.folder.parent} to start over"
            )
        self.reward = TrainedReward.load(folder, str(self.reward.device))

    def publish(self, folder: Path) -> None:
        """Write versions.json, and a folder for each version that was adopted after version 0."""
        folder.mkdir(parents=True, exist_ok=True)
        for version in self.versions[1:]:
            if version.adopted:
                shutil.copytree(self.folder / version.folder, folder / version.folder)
        write_versions(folder, self.versions)
