"""Checkpoints of an alignment: whole tensors by name, readable by any number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from components.alignment.policy import Policy
from components.runtime.artifacts.checkpoints import Checkpointer, pack_optimizer, unpack_optimizer
from components.runtime.compute.distributed import Ranks

#: Prefixes of the names of the best policy's and the optimizer's tensors; policy and reference have none.
BEST, OPTIMIZER = "kept/", "optimizer"


class Stateful(Protocol):
    """A part of a run with a state of JSON values."""

    def state(self) -> Any:
        """Return the state."""

    def restore(self, state: Any) -> None:
        """Take what `state` returned, after a JSON file."""


class AlignmentCheckpoints:
    """Saves and restores policy, reference, best policy and optimizer, and the state of a run's parts."""

    def __init__(
        self,
        folder: Path,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
        parts: Mapping[str, Stateful],
    ) -> None:
        self.checkpointer = Checkpointer(folder)
        self.policy, self.optimizer, self.ranks, self.parts = policy, optimizer, ranks, parts

    def save(self, done: int, best: Mapping[str, Tensor]) -> None:
        """Write a checkpoint after `done` iterations; every process calls it, the main one writes."""
        moments, optimizer = pack_optimizer(self.optimizer, OPTIMIZER)
        tensors: dict[str, Tensor] = {}
        named = self.policy.tensors() | moments | {f"{BEST}{name}": value for name, value in best.items()}
        for name, value in named.items():
            # One after the other: the main process's host holds all whole tensors, a GPU only one.
            whole = self.policy.whole_of(self._parameter(name), value)
            if self.ranks.is_main:
                tensors[name] = whole.cpu()
        if self.ranks.is_main:
            state = {name: part.state() for name, part in self.parts.items()}
            self.checkpointer.save(done, tensors, {**state, "optimizer": optimizer})

    def restore(self) -> tuple[int, dict[str, Tensor]]:
        """Restore everything from the last checkpoint; return iterations done and the best policy's tensors.

        Without a checkpoint nothing changes: 0 and none.
        """
        checkpoint = self.checkpointer.latest()
        if checkpoint is None:
            return 0, {}
        tensors = {
            name: self.policy.share_of(self._parameter(name), value)
            for name, value in checkpoint.tensors.items()
        }
        self.policy.restore(tensors)
        unpack_optimizer(self.optimizer, tensors, checkpoint.state["optimizer"], OPTIMIZER)
        for name, part in self.parts.items():
            part.restore(checkpoint.state[name])
        best = {n.removeprefix(BEST): value.cpu() for n, value in tensors.items() if n.startswith(BEST)}
        return checkpoint.step, best

    def _parameter(self, name: str) -> str:
        """Return the name of the parameter that a checkpoint's tensor belongs to."""
        if name.startswith(f"{OPTIMIZER}."):
            return list(self.policy.parameters())[int(name.split(".")[1])]
        return name.removeprefix(BEST).partition("/")[2]
