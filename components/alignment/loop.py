"""The alignment loop: candidates, pairs, updates, the reference, the guards, and at times the reward.

It continues from a checkpoint where there is one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from components.alignment.checkpoint import AlignmentCheckpoints, Stateful
from components.alignment.ledger import LedgerOrigin, LedgerWriter, kept_latents
from components.alignment.monitor import curve
from components.alignment.monitor.curve import Row
from components.alignment.monitor.guards import Guards
from components.alignment.monitor.heldout_judge import HeldOutJudge
from components.alignment.policy.reference import Reference
from components.alignment.policy.updater import Pair, Updater, pairs_of
from components.alignment.strategies import RolloutBatch, Setting, strategy_of
from components.alignment.versioned_reward import RewardSchedule, VersionedReward
from components.runtime.compute.signals import StopSignal
from components.runtime.progress import Progress


class AlignmentLoop:
    """Aligns a generator to a reward.

    All randomness has named seeds, so that batch sizes and processes do not change the pairs.

    Attributes:
        done: iterations done.
        updates: optimizer steps taken; skipped ones do not count.
        curve: one row for each iteration done, see `components.alignment.monitor.curve.COLUMNS`.
        best: the kept policy's tensors on the host; empty before one was kept.
        seconds: by phase.
    """

    def __init__(
        self,
        setting: Setting,
        reward: VersionedReward,
        checkpoints: Path,
        judge: HeldOutJudge | None = None,
        on_iteration: Callable[[Row], None] = lambda row: None,
    ) -> None:
        """Start, or continue from the last checkpoint.

        Args:
            checkpoints: folder of the run's checkpoints and ledger.
            judge: the held-out judge; None takes no readings.
            on_iteration: called with each iteration's row of the curve.
        """
        self.setting, self.params, self.ranks = setting, setting.params, setting.ranks
        self.policy, self.reward, self.judge, self.on_iteration = setting.policy, reward, judge, on_iteration
        self.strategy = strategy_of(setting)
        kind = self.params.reference or self.strategy.reference
        self.reference = Reference(self.policy, kind, self.params.reference_sync_every)
        self.schedule = RewardSchedule.of(self.params)
        self.updater = Updater(self.policy, self.params, self.ranks, self.strategy.objective)
        self.guards = Guards(self.params.guards)
        self.ledger = LedgerWriter(checkpoints / "ledger")
        self.curve: list[Row] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.updates = 0
        parts: dict[str, Stateful] = {
            "loop": self, "reference": self.reference, "reward_versions": reward, "guards": self.guards,
        }  # fmt: skip
        if judge is not None:
            parts["judge"] = judge
        self.checkpoints = AlignmentCheckpoints(
            checkpoints, self.policy, self.updater.optimizer, self.ranks, parts
        )
        self.done, self.best = self.checkpoints.restore()

    def run(self) -> None:
        """Run the iterations that are left, or until a guard ends the run.

        Raises:
            Interrupted: the process was told to stop; a checkpoint is written first.
        """
        total = self.params.iterations
        with StopSignal() as stop, Progress(total, "alignment", start=self.done) as progress:
            while not self.ended:
                row = self._iterate(self.done)
                self.done += 1
                self._watch(row)
                self.curve.append(row)
                self.on_iteration(row)
                accuracy = row.get("rewards/accuracies", 0.0)
                progress.update(1, reward=row["reward_mean"], pairs=row["pairs"], accuracy=accuracy)
                stopping = stop.should_stop(self.ranks)
                if stopping or self._checkpoint_due:
                    self.checkpoints.save(self.done, self.best)
                stop.raise_if_requested(self.ranks)

    @property
    def ended(self) -> bool:
        """Whether all iterations are done, or a guard ended the run."""
        return self.done >= self.params.iterations or self.guards.stop is not None

    def _iterate(self, iteration: int) -> Row:
        before = self.updates
        with self._clock("rollout"):
            # Some updates may not take place for lack of pairs; then the frames are kept in vain.
            due = self.schedule.due(iteration, before, before + self.params.inner_updates)
            keep = self.reward.keep if due else None
            batch = self.strategy.rollout(iteration, self.reward.reward, keep)
        with self._clock("update"):
            pairs = pairs_of(batch.local, batch.decisions, self.setting.generator)
            self._record(iteration, batch)
            row = {**curve.figures_of(batch), "iteration": iteration}
            row["reward_version"] = self.reward.version.number
            row |= self._update(pairs, iteration)
            drift = self.updater.drift(pairs, iteration)
            if drift is not None:
                row["drift_from_base"] = drift
        if self.schedule.due(iteration, before, self.updates):
            with self._clock("reward_refresh"):
                self.reward.refresh(batch.local, iteration)
        return {**row, "updates": self.updates, "reference_version": self.reference.version}

    def _update(self, pairs: list[Pair], iteration: int) -> Row:
        """Take the iteration's optimizer steps; return the figures of the last one that was not skipped."""
        row: Row = {}
        skipped = 0
        for update in range(self.params.inner_updates):
            figures = self.updater.step(pairs, iteration, update)
            if not figures:
                break
            self.guards.after_update(iteration + 1, figures["gradient_norm"])
            if not self.guards.broken:
                row = figures
                self.updates += 1
                self.reference.after_update(self.updates, self.guards.agrees)
                continue
            skipped += 1
            if self.guards.stop is not None:
                break
        return {**row, "updates_skipped": float(skipped)}

    def _record(self, iteration: int, batch: RolloutBatch) -> None:
        """Write the iteration's candidates into the ledger."""
        half = self.setting.generator.settings.precision == "half"
        mine = kept_latents(batch.local, batch.decisions, self.params.keep_latents, half=half)
        latents = {name: clip for part in self.ranks.all_gather_object(mine) for name, clip in part.items()}
        if not self.ranks.is_main:
            return
        version, policy = self.reward.version, self.updates if self.strategy.on_policy else 0
        origin = LedgerOrigin(policy, self.reference.version, version.number, version.digest)
        origins = batch.origins or origin
        self.ledger.write(iteration, batch.groups, batch.decisions, origins, latents, trained=True)

    def _watch(self, row: Row) -> None:
        """Show the guards the iteration that was just done, with a reading where one is due."""
        self.guards.after_iteration(row)
        # The guards have reported figures that are not finite; curve, tracking and means leave them out.
        for name in [name for name, value in row.items() if not math.isfinite(value)]:
            del row[name]
        if self.guards.broken:
            return
        if self.judge is None:
            # No judge says how good the policy is, but its figures are finite.
            if self._checkpoint_due:
                self._keep()
                self.guards.kept_iteration = self.done
        elif self.guards.due(self.done, self.params.iterations):
            with self._clock("held_out"):
                reading = self.judge.read(self.policy, self.done)
                row |= reading.row()
                if self.guards.after_reading(reading) != "regressed":
                    self._keep()

    def _keep(self) -> None:
        self.best = {n: value.to("cpu", copy=True) for n, value in self.policy.tensors().items()}

    @contextmanager
    def _clock(self, phase: str) -> Iterator[None]:
        began = monotonic()
        yield
        self.seconds[phase] += monotonic() - began

    @property
    def _checkpoint_due(self) -> bool:
        return self.ended or self.done % self.params.checkpoint_every == 0

    def state(self) -> dict[str, Any]:
        """Return the loop's own state as JSON values for a checkpoint."""
        return {"updates": self.updates, "curve": self.curve, "seconds": dict(self.seconds)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the loop's state of a checkpoint."""
        self.updates, self.curve = state["updates"], state["curve"]
        self.seconds.update(state["seconds"])
