"""Gradient steps on an iteration's pairs.

Noise and time are shared inside a pair, the reference runs without gradients, and one forward serves
both sides.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from components.alignment.objectives import OBJECTIVES, Objective, PairErrors, diagnostics, pair_errors
from components.alignment.params import AlignmentParams
from components.alignment.policy import Policy
from components.alignment.policy.sharding import clip_gradients
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


Row = tuple[Pair, Tensor, Tensor]
"""A pair with noise (C, T, h, w) and a training time (1,)."""


def draw_noise(policy: Policy, pair: Pair, seed: int, names: tuple[str | int, ...]) -> tuple[Tensor, Tensor]:
    """Return noise (C, T, h, w) and a training time (1,) for one pair.

    They are drawn on the host from a name, the same whoever computes them.
    """
    generator = torch_generator(seed, "dpo noise", *names, pair.prompt_id)
    noise = torch.randn(pair.winner.shape, generator=generator)
    return noise, policy.family.noise_process.sample_times(1, generator)


class Updater:
    """Holds the optimizer and applies an objective's steps to the policy.

    The objective is the params' own unless one is given; ``winner_weight`` adds the winner's error to any.
    """

    def __init__(
        self, policy: Policy, params: AlignmentParams, ranks: Ranks, objective: Objective | None = None
    ) -> None:
        self.policy = policy
        self.params = params
        self.ranks = ranks
        self.objective = objective or OBJECTIVES[params.objective]
        if params.gradient_checkpointing:
            policy.checkpoint_activations()
        self.weights = list(policy.parameters().values())
        self.optimizer = torch.optim.AdamW(self.weights, lr=params.learning_rate, weight_decay=0.0)

    def learning_rate(self, iteration: int) -> float:
        """Linear decay over the run, from the params' learning rate to a tenth of it.

        Late pairs differ little, and drift is what they teach.
        """
        share = iteration / max(1, self.params.iterations - 1)
        return self.params.learning_rate * (1.0 - 0.9 * share)

    def errors(self, pairs: Sequence[Pair], noises: Sequence[Tensor], times: Tensor) -> PairErrors:
        """Return the denoising errors of P (pair, noise, time) rows.

        Winners and losers share noise and time, and one forward pass.
        """
        policy, family = self.policy, self.policy.family
        device = family.device
        noise = torch.stack(list(noises)).to(device)
        clean = torch.stack([p.winner for p in pairs] + [p.loser for p in pairs]).to(device)
        noise, time = torch.cat([noise, noise]), torch.cat([times, times]).to(device)
        text = _texts(pairs)
        text = torch.cat([text, text])
        noisy = family.noise_process.add_noise(clean, noise, time)
        target = family.noise_process.target(clean, noise, time)
        with policy.reference():
            reference = family.predict(noisy, time, text)
        return pair_errors(family.predict(noisy, time, text), reference, target, self.params.loss_reduction)

    def step(self, pairs: Sequence[Pair], iteration: int, update: int) -> dict[str, float]:
        """Take one optimizer step over this process's pairs (all processes together).

        Returns the figures, averaged over all pairs. With no pairs anywhere nothing is changed and {} is
        returned. Nor are the weights where ``gradient_norm`` is not finite: the step is skipped.
        """
        draws = self.params.noise_draws
        rows = [
            (pair, *draw_noise(self.policy, pair, self.params.run.seed, (iteration, update, draw)))
            for pair in pairs
            for draw in range(draws)
        ]
        total = sum(self.ranks.all_gather_object(len(rows)))
        if total == 0:
            return {}
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(iteration)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = defaultdict(float)
        with self.policy.in_step():
            for part in self._parts(rows):
                pairs_here, noises, times = zip(*part, strict=True)
                errors = self.errors(pairs_here, noises, torch.cat(times))
                losses = self.objective(errors, self.params.beta) + self.params.winner_weight * errors.winner
                loss = losses.sum() / total
                loss.backward()
                sums["loss"] += loss.item()
                for name, values in diagnostics(errors, self.params.beta).items():
                    sums[name] += values.sum().item() / total
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            # The processes' gradients are added up; all_reduce_mean divides by their number, and so did what
            # added up the shares of a gradient.
            weight.grad.mul_(self.ranks.size)
        weights, cut = self.policy.parameters(), self.policy.cut
        whole = [weight.grad for name, weight in weights.items() if name not in cut]
        self.ranks.all_reduce_mean([gradient for gradient in whole if gradient is not None])
        sums["gradient_norm"] = clip_gradients(weights, cut, GRADIENT_CLIP, self.ranks)
        # The norm is of all processes' gradients: all of them skip, or none.
        if math.isfinite(sums["gradient_norm"]):
            self.optimizer.step()
            self.policy.stepped()
        gathered = self.ranks.all_gather_object(dict(sums))
        names = sorted({name for figures in gathered for name in figures} - {"gradient_norm"})
        figures = {name: sum(part.get(name, 0.0) for part in gathered) for name in names}
        return {**figures, "gradient_norm": gathered[0]["gradient_norm"]}

    @torch.no_grad()
    def drift(self, pairs: Sequence[Pair], iteration: int) -> float | None:
        """Return how far the policy has gone from the original base.

        It is the mean squared difference of their predictions on winners, measured against the base, not the
        reference, whose refreshes set the implicit margin back to 0.
        """
        family = self.policy.family
        rows = [
            (pair, *draw_noise(self.policy, pair, self.params.run.seed, (iteration, "drift")))
            for pair in pairs
        ]
        total = 0.0
        with self.policy.in_step():
            for part in self._parts(rows):
                pairs_here, noises, times = zip(*part, strict=True)
                clean = torch.stack([pair.winner for pair in pairs_here]).to(family.device)
                noise, time = torch.stack(noises).to(family.device), torch.cat(times).to(family.device)
                noisy, text = family.noise_process.add_noise(clean, noise, time), _texts(pairs_here)
                own = family.predict(noisy, time, text)
                with self.policy.base():
                    base = family.predict(noisy, time, text)
                total += (own - base).square().flatten(1).mean(dim=1).sum().item()
        gathered = self.ranks.all_gather_object((total, len(rows)))
        pairs_seen = sum(part[1] for part in gathered)
        return sum(part[0] for part in gathered) / pairs_seen if pairs_seen else None

    def _parts(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """Rows as many at once as fit memory."""
        for start in range(0, len(rows), self.params.pairs_per_forward):
            yield rows[start : start + self.params.pairs_per_forward]


def _texts(pairs: Sequence[Pair]) -> Tensor:
    return torch.stack([pair.embeddings for pair in pairs])
