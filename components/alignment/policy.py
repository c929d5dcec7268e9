"""The policy and its reference as two LoRA adapters on one frozen network.

There is no second copy of the base in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn

from components.alignment.sharding import InStep, shard
from components.generator.families import ModelFamily
from components.runtime.distributed import Ranks
from components.runtime.errors import InputError
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
        self._in_step: InStep | None = None
        self.refresh_reference()
        self.use(POLICY)

    def share(self, ranks: Ranks, device: torch.device) -> None:
        """Leave each process a share of the base on its device; the adapters stay whole.

        From now on the network is called within `in_step`, by all processes.
        """
        if ranks.size == 1:
            return
        adapters = [*self.parameters(POLICY).values(), *self.parameters(REFERENCE).values()]
        networks = [getattr(self.family.pipeline, name) for name in self.family.denoisers]
        shard(networks, adapters, ranks, device)
        self._in_step = InStep(self.network, ranks)

    def in_step(self) -> AbstractContextManager[None]:
        """What calls the network goes in here, if one process may have more calls than another.

        Every process enters; see `components.alignment.sharding.InStep`. Nothing where each has a whole base.
        """
        return nullcontext() if self._in_step is None else self._in_step.phase()

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

    def checkpoint_activations(self) -> None:
        """Recompute the blocks' activations in the backward pass; the gradients are the same to the bit.

        Raises:
            InputError: the network cannot.
        """
        try:
            self.network.enable_gradient_checkpointing()
        except ValueError as error:
            raise InputError(
                f"alignment.gradient_checkpointing = true: {type(self.network).__name__} cannot; "
                "false is allowed"
            ) from error

    def parameters(self, adapter: str = POLICY) -> dict[str, nn.Parameter]:
        """Return an adapter's parameters by module path."""
        marker = f".{adapter}."
        return {
            name.replace(marker, "."): value
            for name, value in self.network.named_parameters()
            if marker in name
        }

    @torch.no_grad()
    def refresh_reference(self, share: float = 1.0) -> None:
        """Move the reference ``share`` of the way to the policy; at 1 it is a copy of it."""
        policy = self.parameters(POLICY)
        for name, value in self.parameters(REFERENCE).items():
            if share == 1.0:
                value.copy_(policy[name])
            else:
                value.lerp_(policy[name], share)

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
