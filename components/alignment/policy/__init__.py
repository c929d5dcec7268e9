"""What is trained and what it is measured against, one file for each way."""

from __future__ import annotations

from components.alignment.params import AlignmentParams
from components.alignment.policy.base import POLICY, REFERENCE, Policy
from components.alignment.policy.full import FullPolicy
from components.alignment.policy.lora import LoraPolicy
from components.alignment.policy.sharding import ShardingContext
from components.generator.families import ModelFamily
from components.runtime.compute.devices import resolve
from components.runtime.compute.distributed import Ranks


def policy_of(family: ModelFamily, params: AlignmentParams, ranks: Ranks) -> Policy:
    """Return the policy that the params ask for: a LoRA, or all weights at rank 0; sharded or not.

    All processes call a sharded one together, within `Policy.uneven_inputs` only.
    """
    sharding = None
    if params.fsdp and ranks.size > 1:
        sharding = ShardingContext(ranks, resolve(params.run.device))
    if params.lora_rank == 0:
        return FullPolicy(family, sharding)
    return LoraPolicy(family, params.lora_rank, params.run.seed, sharding)


__all__ = ["POLICY", "REFERENCE", "FullPolicy", "LoraPolicy", "Policy", "policy_of"]
