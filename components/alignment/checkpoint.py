"""Checkpoints of an alignment: whole tensors by name, readable by any number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.alignment.policy import Policy
from components.runtime.artifacts.checkpoints import (
    Checkpoint,
    Checkpointer,
    pack_optimizer,
    unpack_optimizer,
)
from components.runtime.compute.distributed import Ranks

#: Names of tensors: policy and reference by themselves, the best policy's behind BEST, the optimizer's behind
#: OPTIMIZER.
BEST, OPTIMIZER = "kept/", "optimizer"


class AlignmentCheckpoints:
    """Saves and restores policy, reference, best policy and optimizer, with the loop's state as JSON."""

    def __init__(self, folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
        self.checkpointer = Checkpointer(folder)
        self.policy, self.optimizer, self.ranks = policy, optimizer, ranks

    def save(self, done: int, best: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint after ``done`` iterations; every process calls it, the main one writes."""
        moments, optimizer = pack_optimizer(self.optimizer, OPTIMIZER)
        tensors: dict[str, Tensor] = {}
        named = self.policy.tensors() | moments | {f"{BEST}{name}": value for name, value in best.items()}
        for name, value in named.items():
            # One after the other: the main process's host holds all whole tensors, a GPU only one.
            whole = self.policy.whole_of(self._parameter(name), value)
            if self.ranks.is_main:
                tensors[name] = whole.cpu()
        if self.ranks.is_main:
            self.checkpointer.save(done, tensors, {**state, "optimizer": optimizer})

    def restore(self) -> tuple[Checkpoint | None, dict[str, Tensor]]:
        """Restore policy, reference and optimizer from the last checkpoint, if any.

        Returns:
            The checkpoint with the loop's state, None where there is none; and the best policy's tensors.
        """
        checkpoint = self.checkpointer.latest()
        if checkpoint is None:
            return None, {}
        tensors = {
            name: self.policy.share_of(self._parameter(name), value)
            for name, value in checkpoint.tensors.items()
        }
        self.policy.restore(tensors)
        unpack_optimizer(self.optimizer, tensors, checkpoint.state["optimizer"], OPTIMIZER)
        best = {n.removeprefix(BEST): value.cpu() for n, value in tensors.items() if n.startswith(BEST)}
        return checkpoint, best

    def _parameter(self, name: str) -> str:
        """Return the name of the parameter that a checkpoint's tensor belongs to."""
        if name.startswith(f"{OPTIMIZER}."):
            return list(self.policy.parameters())[int(name.split(".")[1])]
        return name.removeprefix(BEST).partition("/")[2]
