"""The policy and its reference as two LoRA adapters on one frozen network.

There is no second copy of the base in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig
from torch import nn

from components.alignment.policy.base import ALONE, POLICY, REFERENCE, Policy
from components.alignment.policy.sharding import InStep, Together, shard
from components.generator.families import LORA_FOLDER, ModelFamily
from components.runtime.compute.distributed import Ranks
from components.runtime.compute.seeds import derive


class LoraPolicy(Policy):
    """LoRA adapters ``policy`` (trained) and ``reference`` (frozen) on a family's denoiser.

    Both start as the base: LoRA's second matrix is zero. The base itself is the network with adapters
    switched off.
    """

    def __init__(self, family: ModelFamily, rank: int, seed: int, together: Together | None = None) -> None:
        """Put both adapters on the network.

        Args:
            together: the processes that hold the base together; the adapters stay whole in each of them.
        """
        super().__init__(family)
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=list(family.lora_targets), init_lora_weights=True
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Two adapters on one network are the point here.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            torch.manual_seed(derive(seed, "lora"))
            self.network.add_adapter(config, adapter_name=REFERENCE)
            self.network.add_adapter(config, adapter_name=POLICY)
        # Float32 whatever the base's type: in 16 bits, steps of a small learning rate round to nothing.
        for adapter in (POLICY, REFERENCE):
            for value in self.parameters(adapter).values():
                value.data = value.data.float()
        self.refresh_reference()
        self.use(POLICY)
        if together is not None:
            adapters = [*self.parameters(POLICY).values(), *self.parameters(REFERENCE).values()]
            networks = [getattr(family.pipeline, name) for name in family.denoisers]
            shard(networks, adapters, together)
            self._in_step = InStep(self.network, together.ranks)

    def use(self, which: str) -> None:
        """Make one adapter the active one."""
        self.network.set_adapter(which)

    @contextmanager
    def base(self) -> Iterator[None]:
        """Run with all adapters switched off, without gradients."""
        self.network.disable_adapters()
        try:
            with torch.no_grad():
                yield
        finally:
            self.network.enable_adapters()
            self.use(POLICY)

    @torch.no_grad()
    def to_base(self) -> None:
        """See `Policy.to_base`; both matrices are zero: zero times what overflows would be no number."""
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
        """Nothing: the optimizer steps what the network computes with."""

    def save(self, folder: Path, ranks: Ranks = ALONE) -> None:
        """Write the policy in the diffusers format into ``lora/``; see ``ModelFamily.save_lora``."""
        if ranks.is_main:
            self.family.save_lora(folder / LORA_FOLDER, POLICY)
