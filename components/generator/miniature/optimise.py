"""How both of the miniature's trainings minimise their loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.training_loop import TrainingLoop

WARMUP_STEPS = 200
EMA_DECAY = 0.999
CHECKPOINT_EVERY = 250


def optimise(
    module: nn.Module,
    loss_at: Callable[[int], Tensor],
    stage: str,
    steps: int,
    learning_rate: float,
    checkpoints: Path,
) -> None:
    """Minimise `loss_at(step)`, which must depend on the step and the weights alone, by AdamW.

    The learning rate warms up linearly over 200 steps and follows a cosine to zero. The module ends with the
    moving average of its weights.

    Raises:
        InputError: a gradient is not finite, as with a learning rate that is too large.
    """

    def rate_at(step: int) -> float:
        warmup = min(1.0, (step + 1) / WARMUP_STEPS)
        return learning_rate * warmup * 0.5 * (1.0 + math.cos(math.pi * step / steps))

    def backward(step: int) -> dict[str, float]:
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return {"loss": loss.item()}

    def check(step: int, figures: dict[str, float]) -> None:
        if not math.isfinite(figures["gradient"]):
            raise InputError(
                f"generator.miniature.{stage}_learning_rate = {learning_rate:g}: the gradient's norm is "
                f"{figures['gradient']} at step {step + 1} of {steps}; a smaller learning rate is needed"
            )

    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    loop = TrainingLoop(
        dict(module.named_parameters()),
        optimizer,
        checkpoints,
        steps=steps,
        learning_rate=rate_at,
        ema_decay=EMA_DECAY,
    )
    with StopSignal() as stop:
        loop.run(stage, backward, stop=stop, checkpoint_every=CHECKPOINT_EVERY, check=check)
