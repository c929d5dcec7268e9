"""What every policy offers to the rest of alignment, whichever of its weights are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.alignment.policy.sharding import UnevenInputJoin
from components.generator.families import ModelFamily
from components.runtime.compute.distributed import Ranks
from components.runtime.errors import InputError

#: The sets of weights that the network may compute with.
POLICY, REFERENCE, BASE = "policy", "reference", "base"
ALONE = Ranks()


class Policy(ABC):
    """A family's denoiser with trained weights, `policy`, and frozen ones, `reference`.

    Both start as the base, which stays available.

    Attributes:
        used: the set of weights that the network computes with.
        sharded: names of the parameters of which each process has a share only.
    """

    sharded: frozenset[str] = frozenset()
    used: str = POLICY

    def __init__(self, family: ModelFamily) -> None:
        self.family = family
        self.network: Any = family.denoiser
        self._join: UnevenInputJoin | None = None

    @abstractmethod
    def parameters(self, of: str = POLICY) -> Mapping[str, Tensor]:
        """Return the float32 weights of `policy` or `reference` by module path; the policy's are what an
        optimizer steps."""

    @abstractmethod
    def use(self, which: str) -> None:
        """Make the network compute with `policy`, `reference` or `base`."""

    @abstractmethod
    def reset_to_base(self) -> None:
        """Set the policy's weights to the base's."""

    @abstractmethod
    def save(self, folder: Path, ranks: Ranks = ALONE) -> None:
        """Write the policy into an artifact's folder, so that `Generator.load` and diffusers read it.

        Every process calls it, the main one writes.
        """

    @contextmanager
    def _with(self, which: str) -> Iterator[None]:
        self.use(which)
        try:
            with torch.no_grad():
                yield
        finally:
            self.use(POLICY)

    def reference(self) -> AbstractContextManager[None]:
        """Run with the reference in the policy's place, without gradients."""
        return self._with(REFERENCE)

    def base(self) -> AbstractContextManager[None]:
        """Run with the base in the policy's place, without gradients."""
        return self._with(BASE)

    def whole_of(self, name: str, value: Tensor) -> Tensor:
        """Gather a tensor in the shape of parameter `name`, such as optimizer state, from all processes;
        every process calls it."""
        return value

    def share_of(self, name: str, value: Tensor) -> Tensor:
        """Undo `whole_of`, for any number of processes."""
        return value

    def uneven_inputs(self) -> AbstractContextManager[None]:
        """Call the network in here where one process may have more inputs than another.

        Every process enters; see `UnevenInputJoin`. Does nothing where each process has a whole network.
        """
        return nullcontext() if self._join is None else self._join.phase()

    def stepped(self) -> None:
        """The optimizer has changed `parameters`: make the network compute with the new ones."""
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
                f"alignment.gradient_checkpointing = true: {type(self.network).__name__} does not "
                "support it; set it to false"
            ) from error

    @torch.no_grad()
    def sync_reference(self, share: float = 1.0) -> None:
        """Move the reference `share` of the way to the policy; at 1 it becomes a copy."""
        policy = self.parameters(POLICY)
        for name, value in self.parameters(REFERENCE).items():
            if share == 1.0:
                value.copy_(policy[name])
            else:
                value.lerp_(policy[name], share)

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights of policy and reference, each named `<which>/<name>`; see `whole_of`."""
        return {
            f"{of}/{name}": value.detach()
            for of in (POLICY, REFERENCE)
            for name, value in self.parameters(of).items()
        }

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take what `tensors` gave."""
        for of in (POLICY, REFERENCE):
            for name, value in self.parameters(of).items():
                value.copy_(tensors[f"{of}/{name}"])
        self.stepped()
