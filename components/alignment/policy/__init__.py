"""What is trained and what it is measured against, one file for each way."""

from __future__ import annotations

from components.alignment.params import AlignmentParams
from components.alignment.policy.base import POLICY, REFERENCE, Policy
from components.alignment.policy.full import FullPolicy
from components.alignment.policy.lora import LoraPolicy
from components.alignment.policy.sharding import Together
from components.generator.families import ModelFamily
from components.runtime.compute.devices import resolve
from components.runtime.compute.distributed import Ranks


def policy_of(family: ModelFamily, params: AlignmentParams, ranks: Ranks) -> Policy:
    """Return the policy that the params ask for: a LoRA, or at rank 0 all weights; shared with the others.

    One that is shared is called within `Policy.in_step` only, by all processes.
    """
    together = None
    if params.shard and ranks.size > 1:
        together = Together(ranks, resolve(params.run.device))
    if params.lora_rank == 0:
        return FullPolicy(family, together)
    return LoraPolicy(family, params.lora_rank, params.run.seed, together)


__all__ = ["POLICY", "REFERENCE", "FullPolicy", "LoraPolicy", "Policy", "policy_of"]
