"""The loop that trainings share: AdamW's steps on clipped gradients, averaged weights, exact resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.runtime.artifacts.checkpoints import Checkpointer, pack_optimizer, unpack_optimizer
from components.runtime.compute.distributed import Ranks
from components.runtime.compute.signals import StopSignal
from components.runtime.progress import Progress

#: Largest norm of the gradient over all parameters; a longer one is scaled down to it.
MAX_GRADIENT_NORM = 1.0


class TrainingLoop:
    """Trains parameters for a fixed number of steps and keeps an exponential moving average (EMA) of them.

    A killed run resumes from its newest checkpoint and ends with the same bits, if a step's gradients depend
    on the step and the parameters alone.

    Attributes:
        done: steps done; above 0 in a resumed run.
        average: the EMA by parameter name. Its decay is at most (1 + step) / (10 + step), so that the first
            weights are soon forgotten.
        record: JSON values that the caller wants to find again in a resumed run, such as a curve.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        checkpoints: Path | None,
        *,
        steps: int,
        learning_rate: Callable[[int], float],
        ema_decay: float,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Resume from the newest checkpoint, if there is one.

        Args:
            parameters: what is trained, by name.
            optimizer: over them; a group's `lr_scale` (1 if absent) multiplies the learning rate.
            checkpoints: folder of the checkpoints; None saves none.
            steps: how many there are in all.
            learning_rate: by step, counted from 0.
            ema_decay: largest decay of the average, 0..1.
            buffers: further tensors that are saved and restored, by name.
        """
        self.parameters, self.optimizer = dict(parameters), optimizer
        self.steps, self.learning_rate, self.ema_decay = steps, learning_rate, ema_decay
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.record: dict[str, Any] = {}
        self.done = 0
        self._model = {**(buffers or {}), **self.parameters}
        self._checkpointer = Checkpointer(checkpoints) if checkpoints is not None else None
        checkpoint = self._checkpointer.latest() if self._checkpointer is not None else None
        if checkpoint is None:
            return
        with torch.no_grad():
            for kind, tensors in (("model", self._model), ("average", self.average)):
                for name, value in tensors.items():
                    value.copy_(checkpoint.tensors[f"{kind}.{name}"])
        unpack_optimizer(optimizer, checkpoint.tensors, checkpoint.state["optimizer"])
        self.done, self.record = checkpoint.step, checkpoint.state["record"]

    def run(
        self,
        what: str,
        backward: Callable[[int], dict[str, float]],
        *,
        stop: StopSignal,
        checkpoint_every: int,
        ranks: Ranks | None = None,
        check: Callable[[int, dict[str, float]], None] = lambda step, figures: None,
        after_step: Callable[[int, dict[str, float]], None] = lambda done, figures: None,
    ) -> None:
        """Run the steps that are left, then put the averaged weights into the parameters.

        Args:
            what: what is trained, for the progress line.
            backward: leaves a step's gradients in the parameters and returns its figures.
            stop: asked after every step.
            checkpoint_every: steps between checkpoints; the last step and a stop are saved too.
            ranks: processes that run the same steps; the main one saves.
            check: called with a step, counted from 0, its figures and the gradient's norm (`gradient`) before
                the parameters are changed. It raises where the training cannot go on.
            after_step: called with the steps done and the figures.

        Raises:
            Interrupted: a stop was requested; the work so far is in a checkpoint.
        """
        ranks = ranks or Ranks()
        with Progress(self.steps, what, start=self.done) as progress:
            for step in range(self.done, self.steps):
                for group in self.optimizer.param_groups:
                    group["lr"] = group.get("lr_scale", 1.0) * self.learning_rate(step)
                figures = backward(step)
                norm = nn.utils.clip_grad_norm_(self.parameters.values(), MAX_GRADIENT_NORM)
                check(step, {**figures, "gradient": float(norm)})
                self.optimizer.step()
                self._update_average(step)
                self.done = step + 1
                after_step(self.done, figures)
                progress.update(1, **figures)
                stopping = stop.should_stop(ranks)
                if ranks.is_main and (
                    stopping or self.done % checkpoint_every == 0 or self.done == self.steps
                ):
                    self._save()
                stop.raise_if_requested(ranks)
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(self.average[name])
                value.grad = None

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(self.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1.0 - decay)

    def _save(self) -> None:
        if self._checkpointer is None:
            return
        moments, state = pack_optimizer(self.optimizer)
        tensors = {f"model.{name}": value for name, value in self._model.items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        self._checkpointer.save(self.done, tensors | moments, {"optimizer": state, "record": self.record})
