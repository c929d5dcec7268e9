"""Training the reward on ladders: a fixed number of steps, the same bits after a kill and on any number of
processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from components.reward.distortions import FAMILIES
from components.reward.features.fragments import Canvas, fragments
from components.reward.ladders.batches import Shards, Stream
from components.reward.ladders.ladder import TENSORS, Ladders, family_of
from components.reward.model.backbone import Backbone, precision
from components.reward.model.losses import ladder_loss, plcc_loss, silence_loss
from components.reward.model.network import OUTPUTS, RewardNet
from components.reward.params import RewardParams, TrainingParams
from components.runtime.artifacts.pretrained import fetch
from components.runtime.compute.distributed import Ranks
from components.runtime.compute.seeds import derive
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError, one_line
from components.runtime.training_loop import TrainingLoop

LOG_EVERY = 10
#: Parts of a batch, each with its own forward and backward pass, distributed over the processes. Their
#: gradients are added in a fixed order, so that sums have the same bits on any number of processes. More
#: processes than slices bring nothing.
SLICES = 4
#: Weight of an aspect's constancy on other families' ladders against its order on its own.
SILENCE = 0.2

Curve = list[dict[str, float]]


class Diverged(InputError):
    """The loss, its gradient or the weights of a training are not finite."""


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
    checkpoints: Path | None,
    stop: StopSignal,
    device: torch.device,
    ranks: Ranks | None = None,
    report: Callable[[dict[str, float], int], None] | None = None,
    initial: RewardNet | None = None,
) -> tuple[RewardNet, Curve]:
    """Trains a reward network from nothing, from `initial`, or from the newest checkpoint of the same run.

    Args:
        shards: training ladders, all of one K.
        checkpoints: where to save every `checkpoint_every` steps, after the last one and on a stop; None
            saves nothing.
        ranks: the processes that share the work; all end with the same network.
        report: called with the figures of every tenth step.
        initial: the network to start from, with the coding fitted to its own training's statistics; it is
            not changed.

    Returns:
        The network with averaged weights in eval mode, and the training curve.

    Raises:
        InputError: `initial` is not of the sizes that the params and the ladders ask for.
        Diverged: the settings let the loss grow without end.
        Interrupted: a stop was asked for; the work so far is in a checkpoint.
    """
    training, seed, ranks = params.training, params.run.seed, ranks or Ranks()
    stream = Stream(shards, steps=training.steps, batch=training.batch, window=training.window, seed=seed)
    network = _network(params, stream.sample().statistics.flatten(0, 1), initial).to(device)
    loop = TrainingLoop(
        network.trained(),
        _optimiser(network, training),
        checkpoints,
        steps=training.steps,
        learning_rate=lambda step: learning_rate(step, training.steps, training),
        ema_decay=training.average,
        buffers=network.own_state(),
    )
    curve: Curve = loop.record.setdefault("curve", [])
    if loop.done == 0 and initial is None and network.backbone is not None:
        _fit_temporal(network, Batch.of(stream.batch(0), device), derive(seed, "reward scales"))

    def backward(step: int) -> dict[str, float]:
        batch = Batch.of(stream.batch(step), device)
        return _gradients(network, batch, training, ranks, derive(seed, "reward dropout", step))

    def log(done: int, figures: dict[str, float]) -> None:
        if done % LOG_EVERY == 0 or done == training.steps:
            curve.append({"step": float(done), **figures})
            if report is not None:
                report(figures, done)

    network.train()
    with torch.random.fork_rng():
        loop.run(
            "reward: training steps",
            backward,
            stop=stop,
            checkpoint_every=training.checkpoint_every,
            ranks=ranks,
            check=partial(_check, training),
            after_step=log,
        )
    spoilt = {name: math.nan for name, value in network.trained().items() if not value.isfinite().all()}
    _check(training, training.steps - 1, spoilt)
    return network.eval(), curve


def _check(training: TrainingParams, step: int, figures: dict[str, float]) -> None:
    """Raises `Diverged` where a figure of this step is not finite: no later step recovers."""
    wrong = [name for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise Diverged(
            f"reward.training: diverged at step {step + 1} of {training.steps}, {wrong[0]} is not a finite "
            f"number; allowed are settings that it stays finite with: a lower learning_rate "
            f"(now {training.learning_rate:g}), smaller loss weights (rank_weight {training.rank_weight:g}, "
            f"correlation_weight {training.correlation_weight:g}, aspect_weight {training.aspect_weight:g}), "
            f"margin (now {training.margin:g}) or weight_decay (now {training.weight_decay:g})"
        )


def _network(params: RewardParams, statistics: Tensor, initial: RewardNet | None) -> RewardNet:
    """The network that a training starts with; its coding is `initial`'s, or fitted to (N, F) statistics."""
    sizes = params.network
    backbone = None
    if initial is not None:
        backbone = deepcopy(initial.backbone)
    elif sizes.backbone:
        backbone = Backbone.load(fetch(sizes.backbone, "reward.network.backbone ="))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(params.run.seed, "reward weights"))
        network = RewardNet(sizes, statistics.shape[-1], backbone)
    if initial is None:
        network.coding.fit(statistics)
        return network
    try:
        if bool(sizes.backbone) != (backbone is not None):
            raise RuntimeError("one of the two has a backbone")
        network.load_own_state(initial.own_state())
    except RuntimeError as error:
        raise InputError(
            f"reward.network: a training that continues from a reward must have its sizes ({one_line(error)})"
        ) from error
    return network


@torch.no_grad()
def _fit_temporal(network: RewardNet, batch: Batch, seed: int) -> None:
    """Fits the scales behind the backbone to what it sees in a batch."""
    assert network.backbone is not None and network.temporal is not None
    network.eval()
    canvas, count = network.backbone.canvas, len(batch.ladders)
    views = (batch.views(canvas, row, row + 1, seed) for row in range(count))
    network.temporal.fit(torch.cat([network.backbone(view) for view in views]))


def _optimiser(network: RewardNet, training: TrainingParams) -> torch.optim.Optimizer:
    """AdamW over what is trained; a trained backbone gets its share of the learning rate."""
    groups: dict[float, list[Tensor]] = {}
    for name, value in network.trained().items():
        scale = network.params.backbone_rate if name.startswith("backbone.") else 1.0
        groups.setdefault(scale, []).append(value)
    return torch.optim.AdamW(
        [{"params": members, "lr_scale": scale} for scale, members in groups.items()],
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
    )


@dataclass(frozen=True)
class Batch:
    """What a step needs: B ladders of K clips, and the family of each, (B,) int64, -1 for none.

    All is on the device but the pictures, which stay on the CPU.
    """

    ladders: Ladders
    families: Tensor

    @classmethod
    def of(cls, ladders: Ladders, device: torch.device) -> Batch:
        """The batch of these ladders."""
        families = torch.tensor([family_of(recipe) for recipe in ladders.recipes])
        moved = {name: getattr(ladders, name).to(device) for name in TENSORS if name != "frames"}
        return cls(replace(ladders, **moved), families.to(device))

    def views(self, canvas: Canvas, start: int, stop: int, seed: int) -> Tensor:
        """Fragments of ladders start to stop, ((stop - start) * K, frames, 3, height, width), on the device.

        All clips of a ladder are cut at the same places: their order holds for equal places only.

        Raises:
            InputError: the pictures were not kept.
        """
        if not self.ladders.has_frames:
            raise InputError("training with a backbone needs shards with pixels; these hold statistics only")
        seeds = [derive(seed, "fragments", row) for row in range(start, stop)]
        clips = self.ladders.frames[start:stop].to(self.families.device)
        return fragments(clips.flatten(0, 1), canvas, [seed for seed in seeds for _ in range(clips.shape[1])])

    def loss(self, scores: Tensor, training: TrainingParams) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of (M, B, K, outputs) scores, and its parts."""
        levels, labels, seen = self.ladders.levels, self.ladders.labels, self.ladders.seen
        overall, known = scores[..., 0], ~labels.isnan()
        zero = scores.sum() * 0.0
        ranked = ladder_loss(overall, levels, seen, training.margin)
        linear = plcc_loss(overall[:, known], labels[known]) if int(known.sum()) > 2 else zero
        aspects = zero
        for place in range(len(FAMILIES)):
            same = (self.families == place).to(scores.dtype)[:, None, None] * seen
            others = (self.families != place) & (self.families >= 0)
            constant = others.to(scores.dtype)[:, None, None] * seen
            aspect = scores[..., 1 + place]
            aspects = aspects + ladder_loss(aspect, levels, same, training.margin)
            aspects = aspects + SILENCE * silence_loss(aspect, constant)
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

    The correlation is one over the whole batch. So the scores are gathered first, every process takes the
    loss of all of them, and sends its gradient by the scores back through its own slices.
    """
    count, length = batch.ladders.levels.shape
    device = batch.families.device
    canvas = network.backbone.canvas if network.backbone is not None else None
    bounds = [(count * i // SLICES, count * (i + 1) // SLICES) for i in range(SLICES)]
    local: dict[int, Tensor] = {}
    for number in ranks.mine(SLICES):
        start, stop = bounds[number]
        if start == stop:
            continue
        views = batch.views(canvas, start, stop, seed) if canvas is not None else None
        torch.manual_seed(derive(seed, number))
        with precision(device):
            local[number] = network(batch.ladders.statistics[start:stop].flatten(0, 1), views)
    rows = {number: slice(*(bound * length for bound in bounds[number])) for number in local}
    scores = torch.zeros((network.params.members, count * length, OUTPUTS), device=device)
    for number, part in local.items():
        scores[:, rows[number]] = part.detach().float()
    _add_up(scores, ranks)
    scores.requires_grad_()
    loss, parts = batch.loss(scores.unflatten(1, (-1, length)), training)
    (gradient,) = torch.autograd.grad(loss, scores)
    parameters = list(network.trained().values())
    sizes = [parameter.numel() for parameter in parameters]
    sums = torch.zeros((SLICES, sum(sizes)), device=device)
    for number, part in local.items():
        pieces = torch.autograd.grad(part, parameters, gradient[:, rows[number]].to(part.dtype))
        torch.cat([piece.reshape(-1) for piece in pieces], out=sums[number])
    _add_up(sums, ranks)
    total = sums[0]
    for number in range(1, SLICES):
        total += sums[number]
    for parameter, value in zip(parameters, total.split(sizes), strict=True):
        parameter.grad = value.view_as(parameter)
    return {name: float(value.detach()) for name, value in parts.items()}


def _add_up(table: Tensor, ranks: Ranks) -> None:
    """The sum of all processes' tables, each filled in other rows: adding zeros changes no bit."""
    if ranks.size > 1:
        ranks.all_reduce_mean([table])
        table *= ranks.size
