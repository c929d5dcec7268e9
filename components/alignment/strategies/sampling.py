"""Candidates are sampled: by the policy that is trained, or by the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from components.alignment.candidates.pairs import WITHOUT_SPREAD, PairDecision, pair_groups
from components.alignment.candidates.rollout import Group, Keep, prompts_of_iteration, roll_out
from components.alignment.objectives import OBJECTIVES, Objective
from components.alignment.strategies.base import RolloutBatch, Strategy, gather
from components.corpus.prompts import Prompt
from components.reward.base import Reward


class Online(Strategy):
    """Online DPO (OnlineVPO, arXiv 2412.15159): the trained policy samples the candidates.

    They are sampled for the iteration's prompts and scored by the reward.

    Groups without spread get as many candidates again, up to `refill` times; the indices continue.
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


class BestOfN(Online):
    """Best-of-N fine-tuning: online, but trained on the best of its own candidates alone.

    Losers only decide, by the same filters, which groups have a winner: it trains on the same clips.
    """

    @property
    def objective(self) -> Objective:
        """The winner's denoising loss."""
        return OBJECTIVES["sft"]


class Offline(Online):
    """Offline DPO: the base samples the candidates, as many as online, by the same seeds."""

    reference = "fixed"
    on_policy = False

    def drawing(self) -> AbstractContextManager[None]:
        """Select the policy that samples: the base."""
        return self.setting.policy.base()
