"""One iteration's preferences: what every strategy gives, and how candidates become it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch

from components.alignment.candidates.pairs import WITHOUT_SPREAD, PairDecision, pair_groups
from components.alignment.candidates.rollout import Group, Keep, prompts_of_iteration, roll_out
from components.alignment.ledger import LedgerOrigin, LedgerReader
from components.alignment.objectives import OBJECTIVES, Objective
from components.alignment.params import AlignmentParams, ReferenceKind
from components.alignment.policy import Policy
from components.corpus import Prompt
from components.generator import Generator
from components.reward.base import Reward
from components.runtime.compute.distributed import Ranks


@dataclass(frozen=True)
class Setting:
    """What an alignment works with, the same for all of its iterations.

    Attributes:
        prompts: to train on; the held-out judge's are not among them.
        ledger: the source of an offline run's pairs; None lets the base draw the candidates.
    """

    generator: Generator
    policy: Policy
    prompts: Sequence[Prompt]
    params: AlignmentParams
    ranks: Ranks
    ledger: LedgerReader | None = None


@dataclass(frozen=True)
class RolloutBatch:
    """One iteration's candidates with their pair decisions.

    Attributes:
        local: this process's groups, with their latents.
        groups: all processes' groups in the order of the iteration's prompts, without latents.
        decisions: one for each of ``groups``.
        refilled: groups that got more candidates for lack of spread, each time counted.
        clips: clips that all processes sampled for it.
        origins: for each of ``groups``, what drew and scored it; None where that is the run's own policy or
            base, and its reward.
    """

    local: list[Group]
    groups: list[Group]
    decisions: list[PairDecision]
    refilled: int
    clips: int
    origins: list[LedgerOrigin] | None = None


def gather(groups: Sequence[Group], chosen: Sequence[str], ranks: Ranks) -> list[Group]:
    """Return all processes' groups in the order of the prompt ids ``chosen``, without their latents."""
    light = [Group(g.prompt, torch.empty(0), g.candidates) for g in groups]
    by_prompt = {g.prompt.id: g for part in ranks.all_gather_object(light) for g in part}
    return [by_prompt[name] for name in chosen]


class Strategy(ABC):
    """Where candidates come from, and what is learnt from their pairs. All else is shared.

    Attributes:
        reference: the reference policy where the params name none.
        on_policy: whether the policy itself draws the candidates.
    """

    reference: ClassVar[ReferenceKind] = "every_k"
    on_policy: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @property
    def objective(self) -> Objective:
        """The loss of pairs: the params' own, unless the strategy defines one."""
        return OBJECTIVES[self.setting.params.loss]

    @abstractmethod
    def rollout(self, iteration: int, reward: Reward, keep: Keep | None) -> RolloutBatch:
        """Return an iteration's candidates with their pair decisions; every process calls it."""


class Sampling(Strategy):
    """Candidates are sampled for the iteration's prompts and scored by the reward.

    Groups without spread get as many candidates again, up to ``refill`` times; the indices continue.
    """

    def drawing(self) -> AbstractContextManager[None]:
        """Select the policy that draws: the trained one."""
        return nullcontext()

    def rollout(self, iteration: int, reward: Reward, keep: Keep | None) -> RolloutBatch:
        params, ranks = self.setting.params, self.setting.ranks
        chosen = prompts_of_iteration(
            self.setting.prompts, params.prompts_per_iteration, params.run.seed, iteration
        )
        names = [prompt.id for prompt in chosen]

        def sample(prompts: Sequence[Prompt], taken: Mapping[str, int]) -> list[Group]:
            with self.setting.policy.uneven_inputs(), self.drawing():
                if not prompts:
                    return []
                return roll_out(
                    self.setting.generator, reward, prompts, params.num_generations, params.run.seed,
                    iteration, keep, taken, overlap_scoring=params.reward_device is not None,
                )  # fmt: skip

        def decide() -> tuple[list[Group], list[PairDecision]]:
            groups = gather(local, names, ranks)
            candidates = [group.candidates for group in groups]
            return groups, pair_groups(candidates, params.min_gap, params.motion_floor, params.noise_gap)

        mine = [chosen[index] for index in ranks.mine(len(chosen))]
        local = sample(mine, {})
        groups, decisions = decide()
        refilled = 0
        for _ in range(params.dynamic_sampling):
            flat = {decision.prompt_id for decision in decisions if decision.reason in WITHOUT_SPREAD}
            if not flat:
                break
            refilled += len(flat)
            taken = {group.prompt.id: len(group.candidates) for group in local}
            more = {g.prompt.id: g for g in sample([prompt for prompt in mine if prompt.id in flat], taken)}
            local = [g.with_more(more[g.prompt.id]) if g.prompt.id in more else g for g in local]
            # All groups again: more candidates change the iteration's deviation.
            groups, decisions = decide()
        return RolloutBatch(
            local, groups, decisions, refilled, sum(len(group.candidates) for group in groups)
        )
