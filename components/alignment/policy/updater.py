"""Gradient steps on an iteration's pairs.

Winner and loser share noise and time, the reference runs without gradients, and one forward pass serves both
sides.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from components.alignment.candidates.pairs import PairDecision
from components.alignment.candidates.rollout import Group
from components.alignment.objectives import OBJECTIVES, Objective, PairErrors, diagnostics, pair_errors
from components.alignment.params import AlignmentParams
from components.alignment.policy import Policy
from components.alignment.policy.sharding import clip_gradients
from components.generator.generator import Generator
from components.runtime.compute.distributed import Ranks
from components.runtime.compute.seeds import torch_generator

GRADIENT_CLIP = 1.0


@dataclass(frozen=True)
class Pair:
    """A preference of one prompt.

    Clean latents (C, T, h, w) of winner and loser, and the prompt's embeddings (L, D).
    """

    prompt_id: str
    embeddings: Tensor
    winner: Tensor
    loser: Tensor


#: A pair with noise (C, T, h, w) and a training time (1,).
Row = tuple[Pair, Tensor, Tensor]


def pairs_of(groups: Sequence[Group], decisions: Sequence[PairDecision], generator: Generator) -> list[Pair]:
    """Return the pairs of those groups that gave one, in the groups' order."""
    by_prompt = {decision.prompt_id: decision for decision in decisions}
    pairs = []
    for group in groups:
        decision = by_prompt[group.prompt.id]
        if decision.winner is not None and decision.loser is not None:
            text = generator.embeddings([group.prompt.text])[0]
            pairs.append(
                Pair(group.prompt.id, text, group.latents[decision.winner], group.latents[decision.loser])
            )
    return pairs


def draw_noise(policy: Policy, pair: Pair, seed: int, names: tuple[str | int, ...]) -> tuple[Tensor, Tensor]:
    """Return noise (C, T, h, w) and a training time (1,) for one pair.

    They are drawn on the host from a named seed, the same in any process.
    """
    generator = torch_generator(seed, "dpo noise", *names, pair.prompt_id)
    noise = torch.randn(pair.winner.shape, generator=generator)
    return noise, policy.family.noise_process.sample_times(1, generator)


class Updater:
    """Holds the optimizer and applies an objective's steps to the policy.

    The objective is the params' own unless one is given; `sft_weight` times the winner's error is added
    to either.
    """

    def __init__(
        self, policy: Policy, params: AlignmentParams, ranks: Ranks, objective: Objective | None = None
    ) -> None:
        self.policy, self.params, self.ranks = policy, params, ranks
        self.objective = objective or OBJECTIVES[params.loss]
        if params.gradient_checkpointing:
            policy.checkpoint_activations()
        self.weights = list(policy.parameters().values())
        self.optimizer = torch.optim.AdamW(self.weights, lr=params.learning_rate, weight_decay=0.0)

    def learning_rate(self, iteration: int) -> float:
        """Return the params' learning rate, decayed linearly to a tenth over the run.

        Late pairs differ little, and training on them mostly causes drift.
        """
        share = iteration / max(1, self.params.iterations - 1)
        return self.params.learning_rate * (1.0 - 0.9 * share)

    def errors(self, pairs: Sequence[Pair], noises: Sequence[Tensor], times: Tensor) -> PairErrors:
        """Return the denoising errors of P (pair, noise, time) rows, from one forward pass of 2 P."""
        family = self.policy.family
        clean = torch.stack([p.winner for p in pairs] + [p.loser for p in pairs]).to(family.device)
        noise = torch.stack([*noises, *noises]).to(family.device)
        time = torch.cat([times, times]).to(family.device)
        text = _texts([*pairs, *pairs])
        noisy = family.noise_process.add_noise(clean, noise, time)
        target = family.noise_process.target(clean, noise, time)
        with self.policy.reference():
            reference = family.predict(noisy, time, text)
        return pair_errors(family.predict(noisy, time, text), reference, target, self.params.loss_reduction)

    def step(self, pairs: Sequence[Pair], iteration: int, update: int) -> dict[str, float]:
        """Take one optimizer step over all processes' pairs, of which `pairs` are this process's.

        Returns:
            The figures, averaged over all pairs; {} where there are no pairs anywhere and nothing changes.
            Where `gradient_norm` is not finite, the step is skipped.
        """
        seed, draws = self.params.run.seed, range(self.params.timesteps_per_pair)
        rows = [
            (pair, *draw_noise(self.policy, pair, seed, (iteration, update, draw)))
            for pair in pairs
            for draw in draws
        ]
        total = sum(self.ranks.all_gather_object(len(rows)))
        if total == 0:
            return {}
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(iteration)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = defaultdict(float)
        with self.policy.uneven_inputs():
            for batch, noises, times in self._batches(rows):
                errors = self.errors(batch, noises, times)
                losses = self.objective(errors, self.params.beta) + self.params.sft_weight * errors.winner
                loss = losses.sum() / total
                loss.backward()
                sums["loss"] += loss.item()
                for name, values in diagnostics(errors, self.params.beta).items():
                    sums[name] += values.sum().item() / total
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            # Gradients of the processes are summed, but all_reduce_mean and FSDP2's reduction divide by their
            # number.
            weight.grad.mul_(self.ranks.size)
        weights, sharded = self.policy.parameters(), self.policy.sharded
        whole = [weight.grad for name, weight in weights.items() if name not in sharded]
        self.ranks.all_reduce_mean([gradient for gradient in whole if gradient is not None])
        norm = clip_gradients(weights, sharded, GRADIENT_CLIP, self.ranks)
        # The norm is of all processes' gradients: either all processes skip the step, or none.
        if math.isfinite(norm):
            self.optimizer.step()
            self.policy.stepped()
        parts = self.ranks.all_gather_object({**sums, "gradient_norm": norm})
        names = sorted({name for part in parts for name in part})
        figures = {name: sum(part.get(name, 0.0) for part in parts) for name in names}
        return figures | {"gradient_norm": parts[0]["gradient_norm"]}

    @torch.no_grad()
    def drift(self, pairs: Sequence[Pair], iteration: int) -> float | None:
        """Return how far the policy is from the original base; None where there are no pairs anywhere.

        It is the mean squared difference of their predictions on noised winners. It is measured against the
        base because each reference sync sets the implicit margin back to 0.
        """
        family = self.policy.family
        seed = self.params.run.seed
        rows = [(pair, *draw_noise(self.policy, pair, seed, (iteration, "drift"))) for pair in pairs]
        total = 0.0
        with self.policy.uneven_inputs():
            for batch, noises, times in self._batches(rows):
                clean = torch.stack([pair.winner for pair in batch]).to(family.device)
                noise, time = torch.stack(noises).to(family.device), times.to(family.device)
                noisy, text = family.noise_process.add_noise(clean, noise, time), _texts(batch)
                prediction = family.predict(noisy, time, text)
                with self.policy.base():
                    base = family.predict(noisy, time, text)
                total += (prediction - base).square().flatten(1).mean(dim=1).sum().item()
        totals, counts = zip(*self.ranks.all_gather_object((total, len(rows))), strict=True)
        return sum(totals) / sum(counts) if sum(counts) else None

    def _batches(self, rows: Sequence[Row]) -> Iterator[tuple[list[Pair], list[Tensor], Tensor]]:
        """Yield pairs, noises and times (P,) of as many rows as fit into memory."""
        for start in range(0, len(rows), self.params.pairs_per_forward):
            pairs, noises, times = zip(*rows[start : start + self.params.pairs_per_forward], strict=True)
            yield list(pairs), list(noises), torch.cat(times)


def _texts(pairs: Sequence[Pair]) -> Tensor:
    return torch.stack([pair.embeddings for pair in pairs])
