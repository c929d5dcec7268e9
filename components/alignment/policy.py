"""The policy and its reference as two LoRA adapters on one frozen network.

There is no second copy of the base in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn

from components.generator.families import ModelFamily
from components.runtime.seeds import derive

POLICY, REFERENCE = "policy", "reference"


class Policy:
    """LoRA adapters ``policy`` (trained) and ``reference`` (frozen) on a family's denoiser.

    Both start as the base: LoRA's second matrix is zero. The base itself is the network with adapters
    switched off.
    """

    def __init__(self, family: ModelFamily, rank: int, seed: int) -> None:
        self.family = family
        self.network: Any = family.denoiser
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

    def use(self, adapter: str) -> None:
        """Make one adapter the active one."""
        self.network.set_adapter(adapter)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Run with the reference in the policy's place, without gradients."""
        self.use(REFERENCE)
        try:
            with torch.no_grad():
                yield
        finally:
            self.use(POLICY)

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

    def parameters(self, adapter: str = POLICY) -> dict[str, nn.Parameter]:
        """Return an adapter's parameters by module path."""
        marker = f".{adapter}."
        return {
            name.replace(marker, "."): value
            for name, value in self.network.named_parameters()
            if marker in name
        }

    @torch.no_grad()
    def refresh_reference(self) -> None:
        """Copy the policy into the reference (the paper's curriculum preference update)."""
        policy = self.parameters(POLICY)
        for name, value in self.parameters(REFERENCE).items():
            value.copy_(policy[name])

    def tensors(self) -> dict[str, Tensor]:
        """Return both adapters' weights for a checkpoint."""
        return {
            f"{adapter}/{name}": value.detach()
            for adapter in (POLICY, REFERENCE)
            for name, value in self.parameters(adapter).items()
        }

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take both adapters' weights from a checkpoint."""
        for adapter in (POLICY, REFERENCE):
            for name, value in self.parameters(adapter).items():
                value.copy_(tensors[f"{adapter}/{name}"])

    def save(self, folder: Path) -> None:
        """Write the policy in the diffusers format; see ``ModelFamily.save_lora``."""
        self.family.save_lora(folder, POLICY)
