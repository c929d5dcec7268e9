"""One iteration's preferences: what every strategy gives, and how candidates become it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from components.alignment.candidates.pairs import WITHOUT_SPREAD, Verdict, judge_iteration
from components.alignment.candidates.rollout import Group, prompts_of_iteration, roll_out
from components.alignment.ledger import LedgerReader, Origin
from components.alignment.objectives import OBJECTIVES, Objective
from components.alignment.params import AlignmentParams, ReferenceKind
from components.alignment.policy import Policy
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
from components.reward.base import Reward
from components.runtime.compute.distributed import Ranks

Keep = Callable[[Tensor, float], Tensor]
"""What to keep of a prompt's clips, uint8 (N, T, 3, H, W) at a frame rate; see `rollout.roll_out`."""


@dataclass(frozen=True)
class Setting:
    """What a strategy works with, the same for all of an alignment's iterations."""

    generator: Generator
    policy: Policy
    prompts: Sequence[Prompt]
    params: AlignmentParams
    ranks: Ranks
    ledger: LedgerReader | None = None


@dataclass(frozen=True)
class Drawn:
    """One iteration's candidates, judged.

    Attributes:
        mine: this process's groups, with their latents.
        everyone: all processes' groups in the order of the iteration's prompts, with their figures only.
        verdicts: one for each of ``everyone``.
        refilled: groups that got more candidates for want of spread, each time counted.
        clips: clips that were sampled for it, by all processes.
        origins: for each of ``everyone``, what drew and judged it; None where that is the run's own policy
            or base, and its reward.
    """

    mine: list[Group]
    everyone: list[Group]
    verdicts: list[Verdict]
    refilled: int
    clips: int
    origins: list[Origin] | None = None


def gather(groups: Sequence[Group], chosen: Sequence[str], ranks: Ranks) -> list[Group]:
    """Return every process's groups in the order of the prompt ids ``chosen``.

    Only their figures travel, not their latents.
    """
    light = [Group(g.prompt, torch.empty(0), g.candidates) for g in groups]
    by_prompt = {g.prompt.id: g for part in ranks.all_gather_object(light) for g in part}
    return [by_prompt[name] for name in chosen]


class Strategy(ABC):
    """Where candidates come from, and what is learnt from their pairs. All the rest is shared.

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
        """What is learnt from pairs: the objective that the params name, unless the strategy has its own."""
        return OBJECTIVES[self.setting.params.objective]

    @abstractmethod
    def draw(self, iteration: int, reward: Reward, keep: Keep | None) -> Drawn:
        """Return an iteration's candidates, judged; every process calls it."""


class Sampling(Strategy):
    """Candidates are sampled for the iteration's prompts and judged by the reward.

    Groups without spread get as many candidates again, up to ``refill`` times; their seeds go on by index.
    """

    def drawing(self) -> AbstractContextManager[None]:
        """The policy that draws: the one that is trained."""
        return nullcontext()

    def draw(self, iteration: int, reward: Reward, keep: Keep | None) -> Drawn:
        """See `Strategy.draw`."""
        params, ranks = self.setting.params, self.setting.ranks
        chosen = prompts_of_iteration(self.setting.prompts, params.prompts, params.run.seed, iteration)
        own = [chosen[index] for index in ranks.mine(len(chosen))]
        names = [prompt.id for prompt in chosen]
        groups = self._roll_out(own, {}, iteration, reward, keep)
        everyone = gather(groups, names, ranks)
        verdicts = self._judge(everyone)
        refilled = 0
        for _ in range(params.refill):
            flat = {verdict.prompt_id for verdict in verdicts if verdict.reason in WITHOUT_SPREAD}
            if not flat:
                break
            refilled += len(flat)
            again = [prompt for prompt in own if prompt.id in flat]
            taken = {group.prompt.id: len(group.candidates) for group in groups}
            more = {g.prompt.id: g for g in self._roll_out(again, taken, iteration, reward, keep)}
            groups = [g.with_more(more[g.prompt.id]) if g.prompt.id in more else g for g in groups]
            everyone = gather(groups, names, ranks)
            # All anew: more candidates change what the iteration's spread is.
            verdicts = self._judge(everyone)
        return Drawn(groups, everyone, verdicts, refilled, sum(len(group.candidates) for group in everyone))

    def _roll_out(
        self,
        prompts: Sequence[Prompt],
        taken: dict[str, int],
        iteration: int,
        reward: Reward,
        keep: Keep | None,
    ) -> list[Group]:
        params = self.setting.params
        with self.setting.policy.in_step(), self.drawing():
            if not prompts:
                return []
            return roll_out(
                self.setting.generator, reward, prompts, params.candidates, params.run.seed, iteration, keep,
                taken=taken, meanwhile=params.reward_device is not None,
            )  # fmt: skip

    def _judge(self, everyone: Sequence[Group]) -> list[Verdict]:
        params = self.setting.params
        candidates = [group.candidates for group in everyone]
        return judge_iteration(candidates, params.min_gap, params.motion_floor, params.noise_gap)
