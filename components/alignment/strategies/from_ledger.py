"""Offline DPO on the pairs of an earlier run."""

from __future__ import annotations

import torch

from components.alignment.candidates.pairs import Candidate, PairDecision
from components.alignment.candidates.rollout import Group, Keep, epoch_sample
from components.alignment.ledger import ASPECT, LedgerOrigin, LedgerPair, LedgerReader
from components.alignment.strategies.base import RolloutBatch, Setting, Strategy, gather
from components.reward.base import Reward


class FromLedger(Strategy):
    """The pairs of an earlier run, as many per iteration as there would be prompts; nothing is sampled."""

    reference = "fixed"
    on_policy = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert setting.ledger is not None
        self.ledger: LedgerReader = setting.ledger
        self.pairs = self.ledger.pairs

    def rollout(self, iteration: int, reward: Reward, keep: Keep | None) -> RolloutBatch:
        """See `Strategy.rollout`; the rewards are those of the ledger."""
        params, ranks = self.setting.params, self.setting.ranks
        chosen = epoch_sample(
            self.pairs,
            params.prompts_per_iteration,
            params.run.seed,
            iteration,
            "ledger pairs",
            lambda p: p.prompt.id,
        )
        local = [self._group(chosen[index]) for index in ranks.mine(len(chosen))]
        groups = gather(local, [pair.prompt.id for pair in chosen], ranks)
        decisions = [PairDecision(pair.prompt.id, 0, 1, pair.gap, "accepted") for pair in chosen]
        return RolloutBatch(local, groups, decisions, 0, 0, [LedgerOrigin.of(p.winner) for p in chosen])

    def _group(self, pair: LedgerPair) -> Group:
        candidates = []
        for index, row in enumerate((pair.winner, pair.loser)):
            aspects = {
                n.removeprefix(ASPECT): v for n, v in row.items() if n.startswith(ASPECT) and v is not None
            }
            figures = row["reward"], row["motion"], row["reward_spread"]
            candidates.append(Candidate(pair.prompt.id, index, row["seed"], *figures, aspects))
        return Group(pair.prompt, torch.stack(self.ledger.latents(pair)), candidates)
