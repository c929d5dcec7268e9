"""The policy and its reference as two LoRA adapters on one frozen network, with one copy of the base."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from peft import LoraConfig
from torch import nn

from components.alignment.policy.base import ALONE, BASE, POLICY, REFERENCE, Policy
from components.alignment.policy.sharding import ShardingContext, UnevenInputJoin, shard
from components.generator.families import LORA_FOLDER, ModelFamily
from components.runtime.compute.distributed import Ranks
from components.runtime.compute.seeds import derive


class LoraPolicy(Policy):
    """LoRA adapters `policy` (trained) and `reference` (frozen) on a family's denoiser.

    Both start as the base: LoRA's second matrix is zero. The base itself is the network with its adapters
    disabled.
    """

    def __init__(
        self, family: ModelFamily, rank: int, seed: int, sharding: ShardingContext | None = None
    ) -> None:
        """Put both adapters on the network; shard the base where there is a `sharding` context, while the
        adapters stay whole in each process."""
        super().__init__(family)
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=list(family.lora_targets), init_lora_weights=True
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Two adapters on one network are intended.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            torch.manual_seed(derive(seed, "lora"))
            self.network.add_adapter(config, adapter_name=REFERENCE)
            self.network.add_adapter(config, adapter_name=POLICY)
        # Float32 whatever the base's dtype: in 16 bits, steps of a small learning rate round to nothing.
        for adapter in (POLICY, REFERENCE):
            for value in self.parameters(adapter).values():
                value.data = value.data.float()
        self.sync_reference()
        self.use(POLICY)
        if sharding is not None:
            adapters = [*self.parameters(POLICY).values(), *self.parameters(REFERENCE).values()]
            shard([getattr(family.pipeline, name) for name in family.denoisers], adapters, sharding)
            self._join = UnevenInputJoin(self.network, sharding.ranks, self)

    def use(self, which: str) -> None:
        """Make one adapter the active one, or disable both for the base."""
        if which == BASE:
            self.network.disable_adapters()
        else:
            if self.used == BASE:
                self.network.enable_adapters()
            self.network.set_adapter(which)
        self.used = which

    @torch.no_grad()
    def reset_to_base(self) -> None:
        """See `Policy.reset_to_base`; both matrices become zero, as zero times an overflow would be NaN."""
        for value in self.parameters(POLICY).values():
            value.zero_()

    def parameters(self, of: str = POLICY) -> dict[str, nn.Parameter]:
        """Return an adapter's parameters by module path."""
        marker = f".{of}."
        return {
            name.replace(marker, "."): value
            for name, value in self.network.named_parameters()
            if marker in name
        }

    def stepped(self) -> None:
        """Do nothing: the optimizer steps what the network computes with."""

    def save(self, folder: Path, ranks: Ranks = ALONE) -> None:
        """Write the policy in the diffusers format into `lora/`; see `ModelFamily.save_lora`."""
        if ranks.is_main:
            self.family.save_lora(folder / LORA_FOLDER, POLICY)
