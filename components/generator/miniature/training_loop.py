"""The loop both of the miniature's trainings share.

AdamW, cosine decay, an averaged copy of the weights, exact resume.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from components.runtime.artifacts.checkpoints import Checkpointer, pack_optimizer, unpack_optimizer
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.progress import Progress

WARMUP_STEPS = 200
AVERAGE_DECAY = 0.999
CHECKPOINT_EVERY = 250


class TrainingLoop:
    """Trains ``module`` for a fixed number of steps.

    Leaves the exponential moving average of its weights in it.
    """

    def __init__(
        self, module: nn.Module, *, steps: int, learning_rate: float, checkpoints: Path, what: str
    ) -> None:
        self.module = module
        self.steps = steps
        self.what = what
        self.learning_rate = learning_rate
        self.parameters = dict(module.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.checkpointer = Checkpointer(checkpoints)
        self.done = self._resume()

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up over 200 steps, then a cosine to zero at the last step."""
        warmup = min(1.0, (step + 1) / WARMUP_STEPS)
        return self.learning_rate * warmup * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))

    def run(self, loss_at: Callable[[int], tuple[Tensor, dict[str, float]]]) -> None:
        """Call ``loss_at(step)`` for each step and descend.

        The loss must depend on the step alone, so that a resumed run is the same run.

        Raises:
            InputError: a gradient is not finite, as with a learning rate that is too large.
        """
        with StopSignal() as stop, Progress(self.steps, self.what, start=self.done) as progress:
            for step in range(self.done, self.steps):
                for group in self.optimizer.param_groups:
                    group["lr"] = self.learning_rate_at(step)
                loss, figures = loss_at(step)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), 1.0))
                if not math.isfinite(norm):
                    raise InputError(
                        f"generator.miniature.{self.what}_learning_rate = {self.learning_rate:g}: the "
                        f"gradient's norm is {norm} at step {step + 1} of {self.steps}; "
                        "a smaller one is needed"
                    )
                self.optimizer.step()
                self._update_average(step)
                self.done = step + 1
                if self.done % CHECKPOINT_EVERY == 0 or self.done == self.steps or stop.requested:
                    self._save()
                    progress.update(0, loss=loss.item(), **figures)
                    stop.raise_if_requested()
                progress.update(1)
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(self.average[name])

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
        averages = list(self.average.values())
        torch._foreach_lerp_(averages, list(self.parameters.values()), 1.0 - decay)

    def _save(self) -> None:
        moments, state = pack_optimizer(self.optimizer)
        tensors = {f"weights/{name}": value.detach() for name, value in self.parameters.items()}
        tensors |= {f"average/{name}": value for name, value in self.average.items()}
        self.checkpointer.save(self.done, tensors | moments, state)

    def _resume(self) -> int:
        checkpoint = self.checkpointer.latest()
        if checkpoint is None:
            return 0
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(checkpoint.tensors[f"weights/{name}"])
                self.average[name].copy_(checkpoint.tensors[f"average/{name}"])
        unpack_optimizer(self.optimizer, checkpoint.tensors, checkpoint.state)
        return checkpoint.step
