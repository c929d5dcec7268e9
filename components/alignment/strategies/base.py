"""One iteration's preferences: what every strategy works with, and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from components.alignment.candidates.pairs import PairDecision
from components.alignment.candidates.rollout import Group, Keep
from components.alignment.ledger import LedgerOrigin, LedgerReader
from components.alignment.objectives import OBJECTIVES, Objective
from components.alignment.params import AlignmentParams, ReferenceKind
from components.alignment.policy import Policy
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
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
        decisions: one for each of `groups`.
        refilled: groups that got more candidates for lack of spread, each time counted.
        clips: clips that all processes sampled for it.
        origins: for each of `groups`, what drew and scored it; None where that is the run's own policy or
            base, and its reward.
    """

    local: list[Group]
    groups: list[Group]
    decisions: list[PairDecision]
    refilled: int
    clips: int
    origins: list[LedgerOrigin] | None = None


def gather(groups: Sequence[Group], chosen: Sequence[str], ranks: Ranks) -> list[Group]:
    """Return all processes' groups in the order of the prompt ids `chosen`, without their latents."""
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
