"""The online loop: roll out, score, pair, update, refresh the reference and now and then the reward.

It goes on from a checkpoint where there is one.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from components.alignment.current_reward import CurrentReward
from components.alignment.ledger import rows_of, write_part
from components.alignment.pairs import Verdict, count_reasons, judge_iteration
from components.alignment.params import AlignmentParams
from components.alignment.policy import Policy
from components.alignment.rollout import Group, prompts_of_iteration, roll_out
from components.alignment.update import Pair, Updater
from components.corpus import Prompt
from components.generator import Generator
from components.reward.interface import Reward
from components.reward.refresh import Refresher
from components.runtime.checkpoints import Checkpointer, pack_optimizer, unpack_optimizer
from components.runtime.distributed import Ranks
from components.runtime.interrupts import StopSignal
from components.runtime.progress import Progress

#: Columns of the training curve, in order.
CURVE = (
    "iteration", "updates", "reference_version", "reward_version", "pairs", "reward_mean", "reward_best",
    "spread_mean", "gap_mean", "motion_mean", "loss", "accuracy", "margin", "saturated", "winner_error",
    "loser_error", "winner_above_reference", "gradient_norm", "drift_from_base", "gap_too_small",
    "within_noise", "winner_too_still", "too_few_finite",
)  # fmt: skip


class OnlineDPO:
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
    ) -> None:
        self.generator, self.prompts, self.params = generator, list(prompts), params
        self.ranks, self.on_iteration = ranks, on_iteration
        self.reward = CurrentReward(reward, reward_digest, checkpoints / "reward", ranks, refresher)
        self.policy = Policy(generator.family, params.lora_rank, params.run.seed)
        self.updater = Updater(self.policy, params, ranks)
        self.checkpointer = Checkpointer(checkpoints)
        self.ledger = checkpoints / "ledger"
        self.curve: list[dict[str, float]] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.done = self.updates = self.refreshes = 0
        self._resume()

    def run(self) -> None:
        """Run the iterations that are left.

        Raises:
            Interrupted: the process was told to stop; a checkpoint is written first.
        """
        total = self.params.iterations
        with StopSignal() as stop, Progress(total, "alignment", start=self.done) as progress:
            for iteration in range(self.done, total):
                row = self._iterate(iteration)
                self.curve.append(row)
                self.done = iteration + 1
                self.on_iteration(row)
                progress.update(
                    1, reward=row["reward_mean"], pairs=row["pairs"], accuracy=row.get("accuracy", 0.0)
                )
                stopping = stop.should_stop(self.ranks)
                if stopping or self.done % self.params.checkpoint_every == 0 or self.done == total:
                    self._save()
                stop.raise_if_requested(self.ranks)

    def _iterate(self, iteration: int) -> dict[str, float]:
        began = time.monotonic()
        seed = self.params.run.seed
        chosen = prompts_of_iteration(self.prompts, self.params.prompts, seed, iteration)
        own = [chosen[index] for index in self.ranks.mine(len(chosen))]
        before = self.updates
        # Some updates may fall out for want of pairs; then the frames are kept in vain.
        due = self._reward_due(iteration, before, before + self.params.updates)
        keep = self.reward.keep if due else None
        groups = (
            roll_out(self.generator, self.reward.reward, own, self.params.candidates, seed, iteration, keep)
            if own
            else []
        )
        began = self._clock("rollout", began)
        everyone = self._gather(groups, chosen)
        verdicts = judge_iteration(
            [g.candidates for g in everyone],
            self.params.min_gap,
            self.params.motion_floor,
            self.params.noise_gap,
        )
        pairs = self._pairs(groups, verdicts)
        judge, reference = self.reward.version, self.refreshes
        if self.ranks.is_main:
            rows = rows_of(
                iteration, everyone, verdicts, reference_version=reference, reward_version=judge.number,
                reward_digest=judge.digest,
            )  # fmt: skip
            write_part(self.ledger, iteration, rows)
        row = {**_describe(everyone, verdicts), "iteration": iteration, "reward_version": judge.number}
        for update in range(self.params.updates):
            figures = self.updater.step(pairs, iteration, update)
            if not figures:
                break
            row.update(figures)
            self.updates += 1
            if self.updates % self.params.refresh_every == 0:
                self.policy.refresh_reference()
                self.refreshes += 1
        drift = self.updater.drift(pairs, iteration)
        if drift is not None:
            row["drift_from_base"] = drift
        began = self._clock("update", began)
        if self._reward_due(iteration, before, self.updates):
            self.reward.refresh(groups, iteration)
            self._clock("reward_refresh", began)
        return {**row, "updates": self.updates, "reference_version": self.refreshes}

    def _reward_due(self, iteration: int, before: int, after: int) -> bool:
        """Whether the reward's turn comes between two numbers of updates; after the last iteration it has
        nothing left to judge."""
        every = self.params.refresh_reward_every * self.params.refresh_every
        return every > 0 and iteration + 1 < self.params.iterations and after // every > before // every

    def _clock(self, phase: str, began: float) -> float:
        now = time.monotonic()
        self.seconds[phase] += now - began
        return now

    def _gather(self, groups: list[Group], chosen: Sequence[Prompt]) -> list[Group]:
        """Return every process's groups in the order of the iteration's prompts.

        Only their figures travel, not their latents.
        """
        light = [Group(g.prompt, torch.empty(0), g.candidates) for g in groups]
        by_prompt = {g.prompt.id: g for part in self.ranks.all_gather_object(light) for g in part}
        return [by_prompt[prompt.id] for prompt in chosen]

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

    def _save(self) -> None:
        if not self.ranks.is_main:
            return
        moments, optimizer = pack_optimizer(self.updater.optimizer)
        state: dict[str, Any] = {
            "updates": self.updates,
            "refreshes": self.refreshes,
            "reward_versions": self.reward.state(),
            "curve": self.curve,
            "optimizer": optimizer,
            "seconds": dict(self.seconds),
        }
        self.checkpointer.save(self.done, self.policy.tensors() | moments, state)

    def _resume(self) -> None:
        checkpoint = self.checkpointer.latest()
        if checkpoint is None:
            return
        self.policy.restore(checkpoint.tensors)
        unpack_optimizer(self.updater.optimizer, checkpoint.tensors, checkpoint.state["optimizer"])
        self.done = checkpoint.step
        self.updates, self.refreshes = checkpoint.state["updates"], checkpoint.state["refreshes"]
        self.curve = checkpoint.state["curve"]
        self.reward.restore(checkpoint.state["reward_versions"])
        self.seconds.update(checkpoint.state["seconds"])


def _describe(groups: Sequence[Group], verdicts: Sequence[Verdict]) -> dict[str, float]:
    # A broken score is counted under its reason; it must not turn the curve's means into NaN.
    finite = [[c for c in g.candidates if math.isfinite(c.reward)] for g in groups]
    rewards = [c.reward for group in finite for c in group]
    spreads = [c.spread for group in finite for c in group if math.isfinite(c.spread)]
    motions = [c.motion for g in groups for c in g.candidates if math.isfinite(c.motion)]
    best = [max(c.reward for c in group) for group in finite if group]
    gaps = [v.gap for v in verdicts if v.accepted]
    reasons = count_reasons(verdicts)
    return {
        "pairs": float(reasons.pop("accepted")),
        "reward_mean": _mean(rewards),
        "reward_best": _mean(best),
        "spread_mean": _mean(spreads),
        "gap_mean": _mean(gaps),
        "motion_mean": _mean(motions),
        **{name: float(count) for name, count in reasons.items()},
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
