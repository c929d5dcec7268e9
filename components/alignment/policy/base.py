"""What every policy is to the rest of alignment, whichever of its weights are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.alignment.policy.sharding import InStep
from components.generator.families import ModelFamily
from components.runtime.compute.distributed import Ranks
from components.runtime.errors import InputError

POLICY, REFERENCE = "policy", "reference"
ALONE = Ranks()


class Policy(ABC):
    """A family's denoiser with weights that are trained, ``policy``, and frozen ones, ``reference``.

    Both start as the base, which stays within reach.
    """

    #: Names of the parameters of which each process has a share only.
    cut: frozenset[str] = frozenset()

    def __init__(self, family: ModelFamily) -> None:
        self.family = family
        self.network: Any = family.denoiser
        self._in_step: InStep | None = None

    @abstractmethod
    def parameters(self, of: str = POLICY) -> Mapping[str, Tensor]:
        """Return the float32 weights of ``policy`` or ``reference`` by module path; the policy's are what an
        optimizer steps."""

    @abstractmethod
    def use(self, which: str) -> None:
        """Let the network compute with ``policy`` or ``reference``."""

    @abstractmethod
    def base(self) -> AbstractContextManager[None]:
        """Run with the base in the policy's place, without gradients."""

    @abstractmethod
    def to_base(self) -> None:
        """Make the policy's weights the base's again."""

    @abstractmethod
    def save(self, folder: Path, ranks: Ranks = ALONE) -> None:
        """Write the policy into an artifact's folder, so that ``Generator.load`` and diffusers read it.

        Every process calls it, the main one writes.
        """

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Run with the reference in the policy's place, without gradients."""
        self.use(REFERENCE)
        try:
            with torch.no_grad():
                yield
        finally:
            self.use(POLICY)

    def whole_of(self, name: str, value: Tensor) -> Tensor:
        """Put together what every process has of a tensor in the shape of parameter ``name``, as of the
        optimizer's state; every process calls it."""
        return value

    def share_of(self, name: str, value: Tensor) -> Tensor:
        """Undo `whole_of`, for any number of processes."""
        return value

    def in_step(self) -> AbstractContextManager[None]:
        """What calls the network goes in here, if one process may have more calls than another.

        Every process enters; see `InStep` in sharding.py. Nothing where each has a whole base.
        """
        return nullcontext() if self._in_step is None else self._in_step.phase()

    def stepped(self) -> None:
        """The optimizer has changed `parameters`: from now on the network computes with the new ones."""
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
        """Return the weights of policy and reference, each named ``<which>/<name>``; see `whole_of`."""
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
