"""Training the reward on ladders: fixed steps, every draw named, resumable to the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from components.reward.ladders import Ladders
from components.reward.losses import ladder_loss, plcc_loss
from components.reward.network import RewardNet
from components.reward.params import RewardParams, TrainingParams
from components.runtime.checkpoints import Checkpointer, pack_optimizer, unpack_optimizer
from components.runtime.interrupts import StopSignal
from components.runtime.progress import Progress
from components.runtime.seeds import derive, torch_generator

LOG_EVERY = 10

Curve = list[dict[str, float]]


def learning_rate(step: int, steps: int, training: TrainingParams) -> float:
    """Linear warm-up, then a cosine to 0 at the last of `steps`; step counts from 0."""
    if step < training.warmup:
        return training.learning_rate * (step + 1) / training.warmup
    course = (step - training.warmup) / max(1, steps - training.warmup)
    return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * course))


def batch_of_step(step: int, ladders: int, batch: int, seed: int) -> Tensor:
    """Indices of the ladders of one step: shuffled rounds over all of them, computed from the step alone."""
    picked: list[int] = []
    position = step * batch
    while len(picked) < batch:
        turn, offset = divmod(position, ladders)
        order = torch.randperm(ladders, generator=torch_generator(seed, "reward order", turn))
        part = order[offset : offset + batch - len(picked)].tolist()
        picked += part
        position += len(part)
    return torch.tensor(picked)


def train(
    ladders: Ladders,
    params: RewardParams,
    *,
    checkpoints: Path,
    stop: StopSignal,
    device: torch.device,
    report: Callable[[dict[str, float], int], None] | None = None,
) -> tuple[RewardNet, Curve]:
    """Trains a reward network from nothing, or from the newest checkpoint of the same run.

    Args:
        ladders: training ladders, all of one K; shuffled here.
        checkpoints: where to save every `checkpoint_every` steps and on a stop.
        report: called with the figures of every tenth step.

    Returns:
        The network with averaged weights in eval mode, and the training curve.

    Raises:
        Interrupted: a stop was asked for; the work so far is in a checkpoint.
    """
    training, seed = params.training, params.run.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "reward weights"))
        network = RewardNet(params.network, ladders.statistics.shape[-1])
    network.statistics.fit_bins(ladders.statistics.flatten(0, 1))
    network.to(device)
    late = list(network.pixels.parameters())
    early = [*network.statistics.parameters(), *network.head.parameters()]
    optimiser = torch.optim.AdamW(
        [{"params": early}, {"params": late}], lr=training.learning_rate, weight_decay=training.weight_decay
    )
    average = {name: value.detach().clone() for name, value in network.named_parameters()}
    keeper = Checkpointer(checkpoints)
    curve: Curve = []
    start = 0
    found = keeper.latest()
    if found is not None:
        network.load_state_dict({k[6:]: v for k, v in found.tensors.items() if k.startswith("model.")})
        average = {k[8:]: v.to(device) for k, v in found.tensors.items() if k.startswith("average.")}
        unpack_optimizer(optimiser, found.tensors, found.state["optimizer"])
        start, curve = found.step, found.state["curve"]

    def save(step: int) -> None:
        tensors, state = pack_optimizer(optimiser)
        tensors = {
            **tensors,
            **{f"model.{name}": value for name, value in network.state_dict().items()},
            **{f"average.{name}": value for name, value in average.items()},
        }
        keeper.save(step, tensors, {"optimizer": state, "curve": curve})

    network.train()
    with Progress(training.steps, "reward: training steps", start=start) as progress, torch.random.fork_rng():
        for step in range(start, training.steps):
            torch.manual_seed(derive(seed, "reward dropout", step))
            figures = _update(network, optimiser, ladders, params, step, device)
            decay = min(training.average, (1 + step) / (10 + step))
            with torch.no_grad():
                for name, value in network.named_parameters():
                    average[name].lerp_(value, 1.0 - decay)
            done = step + 1
            if done % LOG_EVERY == 0 or done == training.steps:
                curve.append({"step": float(done), **figures})
                if report is not None:
                    report(figures, done)
            progress.update(1, **figures)
            if stop.requested or (done % training.checkpoint_every == 0 and done < training.steps):
                save(done)
                stop.raise_if_requested()
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(average[name])
    return network.eval(), curve


def _update(
    network: RewardNet,
    optimiser: torch.optim.Optimizer,
    ladders: Ladders,
    params: RewardParams,
    step: int,
    device: torch.device,
) -> dict[str, float]:
    training = params.training
    began = training.steps - training.pixel_steps
    early, late = optimiser.param_groups
    early["lr"] = learning_rate(step, training.steps, training)
    late["lr"] = learning_rate(step - began, training.pixel_steps, training) if step >= began else 0.0
    index = batch_of_step(step, len(ladders), training.batch, params.run.seed)
    pixels = ladders.frames[index].to(device).flatten(0, 1).float() / 255.0 if step >= began else None
    scores = network(pixels, ladders.statistics[index].flatten(0, 1).to(device)).reshape(len(index), -1)
    labels = ladders.labels[index].to(device)
    known = ~labels.isnan()
    ranked = ladder_loss(
        scores, ladders.levels[index].to(device), ladders.seen[index].to(device), training.margin
    )
    linear = plcc_loss(scores[known], labels[known]) if int(known.sum()) > 2 else scores.sum() * 0.0
    loss = training.rank_weight * ranked + training.correlation_weight * linear
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return {
        "loss": float(loss.detach()),
        "rank": float(ranked.detach()),
        "correlation": float(linear.detach()),
    }
