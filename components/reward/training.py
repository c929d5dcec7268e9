"""Training the reward on ladders: fixed steps, every draw named, the same bits after a kill and on any
number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from components.reward.distortions import FAMILIES
from components.reward.ladders import Ladders, family_of
from components.reward.losses import ladder_loss, plcc_loss, silence_loss
from components.reward.network import OUTPUTS, RewardNet
from components.reward.params import RewardParams, TrainingParams
from components.reward.stream import Shards, Stream
from components.runtime.checkpoints import Checkpointer, pack_optimizer, unpack_optimizer
from components.runtime.distributed import Ranks
from components.runtime.interrupts import StopSignal
from components.runtime.progress import Progress
from components.runtime.seeds import derive

LOG_EVERY = 10
SLICES = 4
"""Parts of a batch, each with its own forward and backward pass, dealt out to the processes.

Their gradients are added in one order, whoever made them: floating-point sums then have the same bits on any
number of processes. More processes than slices bring nothing.
"""
SILENCE = 0.2
"""Weight of an aspect's silence on other families' ladders against its order on its own."""

Curve = list[dict[str, float]]


def learning_rate(step: int, steps: int, training: TrainingParams) -> float:
    """Linear warm-up, then a cosine to 0 at the last of `steps`; step counts from 0."""
    if step < training.warmup:
        return training.learning_rate * (step + 1) / training.warmup
    course = (step - training.warmup) / max(1, steps - training.warmup)
    return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * course))


def train(
    shards: Shards,
    params: RewardParams,
    *,
    checkpoints: Path,
    stop: StopSignal,
    device: torch.device,
    ranks: Ranks | None = None,
    report: Callable[[dict[str, float], int], None] | None = None,
) -> tuple[RewardNet, Curve]:
    """Trains a reward network from nothing, or from the newest checkpoint of the same run.

    Args:
        shards: training ladders, all of one K.
        checkpoints: where to save every `checkpoint_every` steps and on a stop.
        ranks: the processes that share the work; all end with the same network.
        report: called with the figures of every tenth step.

    Returns:
        The network with averaged weights in eval mode, and the training curve.

    Raises:
        Interrupted: a stop was asked for; the work so far is in a checkpoint.
    """
    training, seed, ranks = params.training, params.run.seed, ranks or Ranks()
    stream = Stream(shards, steps=training.steps, batch=training.batch, window=training.window, seed=seed)
    sample = stream.sample()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "reward weights"))
        network = RewardNet(params.network, sample.statistics.shape[-1])
    network.coding.fit(sample.statistics.flatten(0, 1))
    network.to(device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
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
        if not ranks.is_main:
            return
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
            optimiser.param_groups[0]["lr"] = learning_rate(step, training.steps, training)
            batch = Batch.of(stream.batch(step), device)
            figures = _gradients(network, batch, training, ranks, derive(seed, "reward dropout", step))
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
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
            stopping = stop.should_stop(ranks)
            if stopping or (done % training.checkpoint_every == 0 and done < training.steps):
                save(done)
            stop.raise_if_requested(ranks)
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(average[name])
    return network.eval(), curve


@dataclass(frozen=True)
class Batch:
    """What the losses need of B ladders of K clips, on the device.

    Attributes:
        statistics: (B, K, F).
        levels, labels: (B, K).
        seen: (B, K, K).
        families: (B,) int64, -1 for none.
    """

    statistics: Tensor
    levels: Tensor
    labels: Tensor
    seen: Tensor
    families: Tensor

    @classmethod
    def of(cls, ladders: Ladders, device: torch.device) -> Batch:
        """The batch of these ladders."""
        families = torch.tensor([family_of(recipe) for recipe in ladders.recipes])
        parts = (ladders.statistics, ladders.levels, ladders.labels, ladders.seen, families)
        return cls(*(part.to(device) for part in parts))

    def loss(self, scores: Tensor, training: TrainingParams) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of (M, B, K, outputs) scores, and its parts."""
        overall = scores[..., 0]
        ranked = ladder_loss(overall, self.levels, self.seen, training.margin)
        known = ~self.labels.isnan()
        linear = (
            plcc_loss(overall[:, known], self.labels[known]) if int(known.sum()) > 2 else scores.sum() * 0.0
        )
        aspects = scores.sum() * 0.0
        for place in range(len(FAMILIES)):
            own = (self.families == place).to(scores.dtype)[:, None, None] * self.seen
            others = ((self.families != place) & (self.families >= 0)).to(scores.dtype)[
                :, None, None
            ] * self.seen
            aspect = scores[..., 1 + place]
            aspects = aspects + ladder_loss(aspect, self.levels, own, training.margin)
            aspects = aspects + SILENCE * silence_loss(aspect, others)
        aspects = aspects / len(FAMILIES)
        loss = (
            training.rank_weight * ranked
            + training.correlation_weight * linear
            + training.aspect_weight * aspects
        )
        return loss, {"loss": loss, "rank": ranked, "correlation": linear, "aspects": aspects}


def _gradients(
    network: RewardNet, batch: Batch, training: TrainingParams, ranks: Ranks, seed: int
) -> dict[str, float]:
    """Leaves the gradient of the whole batch in the network of every process; returns the loss and its parts.

    The correlation is one over the whole batch, so the scores are gathered first, the loss is taken of all
    of them by everyone, and its gradient by the scores is what each process sends back through its own
    slices.
    """
    rungs = batch.levels.shape[1]
    bounds = [len(batch.levels) * i // SLICES for i in range(SLICES + 1)]
    device = batch.levels.device
    mine = {}
    for number in ranks.mine(SLICES):
        part = batch.statistics[bounds[number] : bounds[number + 1]]
        torch.manual_seed(derive(seed, number))
        with precision(device):
            mine[number] = network(part.flatten(0, 1))
    members = next(iter(mine.values())).shape[0] if mine else network.head.weight.shape[0]
    scores = torch.zeros((members, len(batch.levels) * rungs, OUTPUTS), device=device)
    for number, own in mine.items():
        scores[:, bounds[number] * rungs : bounds[number + 1] * rungs] = own.detach().float()
    _add_up(scores, ranks)
    scores.requires_grad_()
    loss, parts = batch.loss(scores.unflatten(1, (-1, rungs)), training)
    (wanted,) = torch.autograd.grad(loss, scores)
    parameters = list(network.parameters())
    sums = torch.zeros((SLICES, sum(p.numel() for p in parameters)), device=device)
    for number, own in mine.items():
        piece = wanted[:, bounds[number] * rungs : bounds[number + 1] * rungs].to(own.dtype)
        found = torch.autograd.grad(own, parameters, piece)
        torch.cat([g.reshape(-1) for g in found], out=sums[number])
    _add_up(sums, ranks)
    total = sums[0]
    for number in range(1, SLICES):
        total += sums[number]
    for parameter, value in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = value.view_as(parameter)
    return {name: float(value.detach()) for name, value in parts.items()}


def _add_up(table: Tensor, ranks: Ranks) -> None:
    """The sum of everybody's table, of which each filled other rows: adding zeros changes no bit."""
    if ranks.size > 1:
        ranks.all_reduce_mean([table])
        table *= ranks.size


@contextmanager
def precision(device: torch.device) -> Iterator[None]:
    """bfloat16 where a GPU multiplies it faster; float32 elsewhere, where it is several times slower."""
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        yield
