"""The alignment loop: candidates, pairs, updates, the reference, now and then the reward, and the guards.

It goes on from a checkpoint where there is one.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from components.alignment.candidates.pairs import REASONS, Verdict, count_reasons
from components.alignment.candidates.rollout import Group
from components.alignment.ledger import LedgerReader, LedgerWriter, Origin, kept_latents
from components.alignment.monitor.guards import Guards
from components.alignment.monitor.heldout_judge import HeldOutJudge
from components.alignment.params import AlignmentParams
from components.alignment.policy import policy_of
from components.alignment.policy.reference import Reference
from components.alignment.policy.updater import Pair, Updater
from components.alignment.strategies import Drawn, Setting, strategy_of
from components.alignment.versioned_reward import CurrentReward
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
from components.reward.base import Reward
from components.reward.refresh.refresher import Refresher
from components.runtime.artifacts.checkpoints import Checkpointer, pack_optimizer, unpack_optimizer
from components.runtime.compute.distributed import Ranks
from components.runtime.compute.signals import StopSignal
from components.runtime.progress import Progress

#: Columns of the training curve, in order.
CURVE = (
    "iteration", "updates", "reference_version", "reward_version", "clips", "pairs", "reward_mean",
    "reward_best", "spread_mean", "gap_mean", "motion_mean", "loss", "accuracy", "margin", "saturated",
    "winner_error", "loser_error", "winner_above_reference", "gradient_norm", "drift_from_base", "refilled",
    "gap_too_small", "within_noise", "winner_too_still", "too_few_finite", "judge_difference", "judge_low",
    "judge_high", "judge_win", "held_out_motion", "candidates_not_finite",
    "updates_skipped",
)  # fmt: skip
#: Of the policy that is kept, in a checkpoint.
KEPT = "kept/"
#: Of the optimizer's state, there.
OPTIMIZER = "optimizer"


class AlignmentLoop:
    """Aligns a generator to a reward.

    All randomness is drawn by name, so batch sizes and processes do not change the pairs.
    """

    def __init__(
        self,
        generator: Generator,
        reward: Reward,
        prompts: Sequence[Prompt],
        params: AlignmentParams,
        *,
        reward_digest: str,
        checkpoints: Path,
        ranks: Ranks,
        on_iteration: Callable[[dict[str, float]], None],
        refresher: Refresher | None = None,
        judge: HeldOutJudge | None = None,
        ledger: LedgerReader | None = None,
    ) -> None:
        """Start, or go on from the last checkpoint.

        Args:
            prompts: to train on; the judge's are none of them.
            reward_digest: names version 0 of the reward.
            checkpoints: folder of the run's checkpoints, ledger and reward versions.
            on_iteration: given each iteration's row of the curve.
            refresher: what refreshes the reward; None keeps one throughout.
            judge: the held-out judge; None takes no readings.
            ledger: where an offline run's pairs come from; None has the base draw them.
        """
        self.generator, self.params = generator, params
        self.ranks, self.on_iteration, self.judge = ranks, on_iteration, judge
        self.reward = CurrentReward(reward, reward_digest, checkpoints / "reward", ranks, refresher)
        self.policy = policy_of(generator.family, params, ranks)
        self.strategy = strategy_of(Setting(generator, self.policy, list(prompts), params, ranks, ledger))
        self.reference = Reference(
            self.policy, params.reference or self.strategy.reference, params.refresh_every
        )
        self.updater = Updater(self.policy, params, ranks, self.strategy.objective)
        self.guards = Guards(params.guards)
        self.checkpointer = Checkpointer(checkpoints)
        self.ledger = LedgerWriter(checkpoints / "ledger")
        self.kept: dict[str, Tensor] = {}
        self.curve: list[dict[str, float]] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.done = self.updates = 0
        self._resume()

    def run(self) -> None:
        """Run the iterations that are left, or until a guard ends the run.

        Raises:
            Interrupted: the process was told to stop; a checkpoint is written first.
        """
        total = self.params.iterations
        with StopSignal() as stop, Progress(total, "alignment", start=self.done) as progress:
            while self.done < total and self.guards.stop is None:
                row = self._iterate(self.done)
                self.done += 1
                self._watch(row)
                self.curve.append(row)
                self.on_iteration(row)
                progress.update(
                    1, reward=row["reward_mean"], pairs=row["pairs"], accuracy=row.get("accuracy", 0.0)
                )
                ended = self.done == total or self.guards.stop is not None
                stopping = stop.should_stop(self.ranks)
                if stopping or ended or self.done % self.params.checkpoint_every == 0:
                    self._save()
                stop.raise_if_requested(self.ranks)

    def take_kept(self) -> str:
        """Put the policy that was kept in the place of the last one, if it is an earlier one.

        Where none was kept and the last one gives what is not a number, the base takes its place.

        Returns:
            which policy it is now, in words.
        """
        if self.kept and self.guards.kept_iteration != self.done:
            self.policy.restore(self.kept)
            return f"the policy after iteration {self.guards.kept_iteration} of {self.done}"
        if self.guards.broken:
            self.policy.to_base()
            return "the base"
        return "the last policy"

    @property
    def untrained(self) -> str | None:
        """Why the policy that `take_kept` chooses is the base, with the figures; None where it is not."""
        kept = self.guards.kept_iteration if self.kept else None
        trained = 0.0 if self.guards.broken else float(self.updates)
        if kept is not None and kept != self.done:
            trained = self.curve[kept - 1]["updates"]
        if trained:
            return None
        names = ("pairs", *REASONS[1:], "candidates_not_finite", "updates_skipped")
        counts = {name: int(sum(row[name] for row in self.curve)) for name in names}
        told = ", ".join(f"{name} {count}" for name, count in counts.items() if count or name == "pairs")
        reason = self.guards.stop or f"{self.updates} updates in {self.done} iterations"
        return f"no trained policy to publish: {reason} ({told})"

    def _iterate(self, iteration: int) -> dict[str, float]:
        began = time.monotonic()
        before = self.updates
        # Some updates may fall out for want of pairs; then the frames are kept in vain.
        due = self._reward_due(iteration, before, before + self.params.updates)
        drawn = self.strategy.draw(iteration, self.reward.reward, self.reward.keep if due else None)
        began = self._clock("rollout", began)
        pairs = self._pairs(drawn.mine, drawn.verdicts)
        judge = self.reward.version
        self._record(iteration, drawn)
        row = {**_describe(drawn), "iteration": iteration, "reward_version": judge.number}
        skipped = 0
        for update in range(self.params.updates):
            figures = self.updater.step(pairs, iteration, update)
            if not figures:
                break
            self.guards.after_update(iteration + 1, figures["gradient_norm"])
            if self.guards.broken:
                skipped += 1
                if self.guards.stop is not None:
                    break
                continue
            row.update(figures)
            self.updates += 1
            self.reference.after_update(self.updates, self.guards.agrees)
        drift = self.updater.drift(pairs, iteration)
        if drift is not None:
            row["drift_from_base"] = drift
        began = self._clock("update", began)
        if self._reward_due(iteration, before, self.updates):
            self.reward.refresh(drawn.mine, iteration)
            self._clock("reward_refresh", began)
        row["updates_skipped"] = float(skipped)
        return {**row, "updates": self.updates, "reference_version": self.reference.version}

    def _record(self, iteration: int, drawn: Drawn) -> None:
        """Write the iteration's candidates into the ledger, and that its pairs are trained on."""
        half = self.generator.settings.precision == "half"
        mine = kept_latents(drawn.mine, drawn.verdicts, self.params.keep_latents, half=half)
        latents = {name: clip for part in self.ranks.all_gather_object(mine) for name, clip in part.items()}
        if not self.ranks.is_main:
            return
        version = self.reward.version
        policy = self.updates if self.strategy.on_policy else 0
        origin = Origin(policy, self.reference.version, version.number, version.digest)
        self.ledger.write(iteration, drawn.everyone, drawn.verdicts, drawn.origins or origin, latents)
        self.ledger.use(iteration, [(iteration, v.prompt_id) for v in drawn.verdicts if v.accepted])

    def _watch(self, row: dict[str, float]) -> None:
        """Let the guards see the iteration that was just done, with a reading where one is due."""
        self.guards.after_iteration(row)
        # The guards have told of a figure that is no number; curve, tracking and means leave it out.
        for name in [name for name, value in row.items() if not math.isfinite(value)]:
            del row[name]
        if self.guards.broken:
            return
        if self.judge is None:
            # Nobody says how good it is; that it gives numbers has just been seen.
            ended = self.done == self.params.iterations or self.guards.stop is not None
            if ended or self.done % self.params.checkpoint_every == 0:
                self._keep()
                self.guards.kept_iteration = self.done
            return
        if not self.guards.due(self.done, self.params.iterations):
            return
        began = time.monotonic()
        reading = self.judge.read(self.policy, self.done)
        row |= reading.row()
        if self.guards.after_reading(reading) != "fallen":
            self._keep()
        self._clock("held_out", began)

    def _keep(self) -> None:
        self.kept = {n: value.to("cpu", copy=True) for n, value in self.policy.tensors().items()}

    def _reward_due(self, iteration: int, before: int, after: int) -> bool:
        """Whether the reward's turn comes between two numbers of updates; after the last iteration it has
        nothing left to judge."""
        every = self.params.refresh_reward_every * self.params.refresh_every
        return every > 0 and iteration + 1 < self.params.iterations and after // every > before // every

    def _clock(self, phase: str, began: float) -> float:
        now = time.monotonic()
        self.seconds[phase] += now - began
        return now

    def _pairs(self, groups: Sequence[Group], verdicts: Sequence[Verdict]) -> list[Pair]:
        accepted = {v.prompt_id: v for v in verdicts if v.accepted}
        pairs = []
        for group in groups:
            verdict = accepted.get(group.prompt.id)
            if verdict is None or verdict.winner is None or verdict.loser is None:
                continue
            text = self.generator.embeddings([group.prompt.text])[0]
            pairs.append(
                Pair(group.prompt.id, text, group.latents[verdict.winner], group.latents[verdict.loser])
            )
        return pairs

    def _weight(self, name: str) -> str:
        """The parameter that a tensor of a checkpoint belongs to."""
        if name.startswith(f"{OPTIMIZER}."):
            return list(self.policy.parameters())[int(name.split(".")[1])]
        return name.removeprefix(KEPT).partition("/")[2]

    def _save(self) -> None:
        moments, optimizer = pack_optimizer(self.updater.optimizer, OPTIMIZER)
        kept = {f"{KEPT}{name}": value for name, value in self.kept.items()}
        tensors: dict[str, Tensor] = {}
        for name, value in (self.policy.tensors() | moments | kept).items():
            # One after the other: whole, they fit the main process's host at most.
            whole = self.policy.whole_of(self._weight(name), value)
            if self.ranks.is_main:
                tensors[name] = whole.cpu()
        if not self.ranks.is_main:
            return
        state: dict[str, Any] = {
            "updates": self.updates,
            "reference": self.reference.state(),
            "reward_versions": self.reward.state(),
            "guards": self.guards.state(),
            "judge": None if self.judge is None else self.judge.state(),
            "curve": self.curve,
            "optimizer": optimizer,
            "seconds": dict(self.seconds),
        }
        self.checkpointer.save(self.done, tensors, state)

    def _resume(self) -> None:
        checkpoint = self.checkpointer.latest()
        if checkpoint is None:
            return
        state = checkpoint.state
        tensors = {n: self.policy.share_of(self._weight(n), value) for n, value in checkpoint.tensors.items()}
        self.policy.restore(tensors)
        unpack_optimizer(self.updater.optimizer, tensors, state["optimizer"], OPTIMIZER)
        self.kept = {n.removeprefix(KEPT): value.cpu() for n, value in tensors.items() if n.startswith(KEPT)}
        self.done, self.updates, self.curve = checkpoint.step, state["updates"], state["curve"]
        self.reference.restore(state["reference"])
        self.reward.restore(state["reward_versions"])
        self.guards.restore(state["guards"])
        if self.judge is not None and state["judge"] is not None:
            self.judge.restore(state["judge"])
        self.seconds.update(state["seconds"])


def _describe(drawn: Drawn) -> dict[str, float]:
    # A broken score is counted under its reason; it must not turn the curve's means into NaN.
    finite = [[c for c in g.candidates if math.isfinite(c.reward)] for g in drawn.everyone]
    rewards = [c.reward for group in finite for c in group]
    spreads = [c.spread for group in finite for c in group if math.isfinite(c.spread)]
    motions = [c.motion for g in drawn.everyone for c in g.candidates if math.isfinite(c.motion)]
    best = [max(c.reward for c in group) for group in finite if group]
    usable = [c for g in drawn.everyone for c in g.candidates if c.finite]
    gaps = [v.gap for v in drawn.verdicts if v.accepted]
    reasons = count_reasons(drawn.verdicts)
    return {
        "clips": float(drawn.clips),
        "pairs": float(reasons.pop("accepted")),
        "reward_mean": _mean(rewards),
        "reward_best": _mean(best),
        "spread_mean": _mean(spreads),
        "gap_mean": _mean(gaps),
        "motion_mean": _mean(motions),
        "refilled": float(drawn.refilled),
        "candidates_not_finite": float(sum(len(g.candidates) for g in drawn.everyone) - len(usable)),
        **{name: float(count) for name, count in reasons.items()},
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
