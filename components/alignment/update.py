"""Gradient steps on an iteration's pairs.

Noise and time are shared inside a pair, the reference runs without gradients, and one forward serves
both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.alignment.objective import PairErrors, denoising_error, diagnostics, dpo_loss
from components.alignment.params import AlignmentParams
from components.alignment.policy import Policy
from components.runtime.distributed import Ranks
from components.runtime.seeds import torch_generator

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


def draw_noise(policy: Policy, pair: Pair, seed: int, names: tuple[str | int, ...]) -> tuple[Tensor, Tensor]:
    """Return noise (C, T, h, w) and a training time (1,) for one pair.

    They are drawn on the host from a name, the same whoever computes them.
    """
    generator = torch_generator(seed, "dpo noise", *names, pair.prompt_id)
    noise = torch.randn(pair.winner.shape, generator=generator)
    return noise, policy.family.process.draw_times(1, generator)


class Updater:
    """Holds the optimizer and applies DPO steps to the policy."""

    def __init__(self, policy: Policy, params: AlignmentParams, ranks: Ranks) -> None:
        self.policy = policy
        self.params = params
        self.ranks = ranks
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
        text = torch.stack([p.embeddings for p in pairs])
        text = torch.cat([text, text])
        noisy = family.process.noisy(clean, noise, time)
        target = family.process.target(clean, noise, time)
        with policy.reference():
            reference = denoising_error(family.predict(noisy, time, text), target, self.params.loss_reduction)
        own = denoising_error(family.predict(noisy, time, text), target, self.params.loss_reduction)
        count = len(pairs)
        return PairErrors(own[:count], own[count:], reference[:count], reference[count:])

    def step(self, pairs: Sequence[Pair], iteration: int, update: int) -> dict[str, float]:
        """Take one optimizer step over this process's pairs (all processes together).

        Returns the figures, averaged over all pairs. With no pairs anywhere nothing is changed and {} is
        returned.
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
        for start in range(0, len(rows), self.params.pairs_per_forward):
            part = rows[start : start + self.params.pairs_per_forward]
            errors = self.errors([r[0] for r in part], [r[1] for r in part], torch.cat([r[2] for r in part]))
            loss = dpo_loss(errors, self.params.beta, self.params.winner_weight).sum() / total
            loss.backward()
            sums["loss"] += loss.item()
            for name, values in diagnostics(errors, self.params.beta).items():
                sums[name] += values.sum().item() / total
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            # The processes' gradients are added up, and all_reduce_mean divides by their number.
            weight.grad.mul_(self.ranks.size)
        self.ranks.all_reduce_mean([w.grad for w in self.weights if w.grad is not None])
        sums["gradient_norm"] = float(nn.utils.clip_grad_norm_(self.weights, GRADIENT_CLIP))
        self.optimizer.step()
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
        total, count = 0.0, 0
        family = self.policy.family
        for pair in pairs:
            noise, time = draw_noise(self.policy, pair, self.params.run.seed, (iteration, "drift"))
            clean, noise = pair.winner[None].to(family.device), noise[None].to(family.device)
            noisy, text = family.process.noisy(clean, noise, time.to(family.device)), pair.embeddings[None]
            own = family.predict(noisy, time.to(family.device), text)
            with self.policy.base():
                base = family.predict(noisy, time.to(family.device), text)
            total, count = total + (own - base).square().mean().item(), count + 1
        gathered = self.ranks.all_gather_object((total, count))
        pairs_seen = sum(part[1] for part in gathered)
        return sum(part[0] for part in gathered) / pairs_seen if pairs_seen else None
