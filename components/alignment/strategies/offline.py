"""Offline DPO: nothing of what the policy learns reaches the candidates."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from components.alignment.candidates.pairs import Candidate, Verdict
from components.alignment.candidates.rollout import Group, dealt
from components.alignment.ledger import ASPECT, LedgerPair, LedgerReader, Origin
from components.alignment.strategies.base import Drawn, Keep, Sampling, Setting, Strategy, gather
from components.reward.base import Reward


class Offline(Sampling):
    """The base draws, with the policy's adapters off: as many candidates as online, by the same seeds."""

    reference = "fixed"
    on_policy = False

    def drawing(self) -> AbstractContextManager[None]:
        """The policy that draws: the base."""
        return self.setting.policy.base()


class FromLedger(Strategy):
    """The pairs of an earlier run, as many an iteration as there would be prompts; nothing is sampled."""

    reference = "fixed"
    on_policy = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert setting.ledger is not None
        self.ledger: LedgerReader = setting.ledger
        self.rows = self.ledger.groups()
        self.pairs = self.ledger.pairs

    def draw(self, iteration: int, reward: Reward, keep: Keep | None) -> Drawn:
        """See `Strategy.draw`; the rewards are those of the ledger."""
        params, ranks = self.setting.params, self.setting.ranks
        chosen = dealt(
            self.pairs, params.prompts, params.run.seed, iteration, "ledger pairs", lambda p: p.prompt.id
        )
        mine = [self._group(chosen[index]) for index in ranks.mine(len(chosen))]
        everyone = gather(mine, [pair.prompt.id for pair in chosen], ranks)
        verdicts = [Verdict(pair.prompt.id, 0, 1, pair.gap, "accepted") for pair in chosen]
        return Drawn(mine, everyone, verdicts, 0, 0, [self._origin(pair) for pair in chosen])

    def _origin(self, pair: LedgerPair) -> Origin:
        row = self.rows[pair.iteration, pair.prompt.id][0]
        return Origin(
            row["policy_version"], row["reference_version"], row["reward_version"], row["reward_digest"]
        )

    def _group(self, pair: LedgerPair) -> Group:
        sides = {row["role"]: row for row in self.rows[pair.iteration, pair.prompt.id] if row["role"]}
        candidates = [_candidate(index, sides[role]) for index, role in enumerate(("winner", "loser"))]
        return Group(pair.prompt, torch.stack(self.ledger.latents(pair)), candidates)


def _candidate(index: int, row: Mapping[str, Any]) -> Candidate:
    aspects = {
        name.removeprefix(ASPECT): value
        for name, value in row.items()
        if name.startswith(ASPECT) and value is not None
    }
    return Candidate(
        row["prompt_id"], index, row["seed"], row["reward"], row["motion"], row["reward_spread"], aspects
    )
