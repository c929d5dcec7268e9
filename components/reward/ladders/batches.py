"""Which ladders each training step sees: a bounded window of shards that depends on the step alone."""

from __future__ import annotations

import math
from typing import Protocol

import torch

from components.reward.ladders.ladder import Ladders, join, shuffled
from components.runtime.compute.seeds import torch_generator

#: Share of the steps in which the shards come in one after the other, while they are still being built.
ARRIVAL = 0.4


class Shards(Protocol):
    """Shards by number, the first as large as any: a `ShardFolder`, or a list of ladders."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Ladders: ...


class Stream:
    """The batches of a training, each a function of its step and the seed alone.

    In the first 40 % of the steps (all of them where there are more ladders than draws) the shards come in,
    in their own order. From then on, if there are more than the window holds, it moves over shuffled rounds,
    so fast that every ladder is drawn once a round. Each batch is drawn at random from the window.
    """

    def __init__(self, shards: Shards, *, steps: int, batch: int, window: int, seed: int) -> None:
        """Args:
        batch: ladders in a batch.
        window: shards held in memory at once.
        """
        self.shards, self.steps, self.batch_size, self.seed = shards, steps, batch, seed
        self._held = {0: shards[0]}
        size = len(self._held[0])
        # Shards that are ever read; with few steps the last are not.
        self.used = min(len(shards), max(1, math.ceil(steps * batch / size)))
        self.window = min(window, self.used)
        self._pace = batch / size
        self._arrived = max(1.0, steps * max(ARRIVAL, self.used * size / (steps * batch)))

    def at_step(self, step: int) -> list[int]:
        """Numbers of the shards in the window."""
        end = min(self.used, max(self.first, math.ceil(self.used * (step + 1) / self._arrived)))
        if self.used > self.window and step >= self._arrived:
            end = self.used + math.floor((step - self._arrived) * self._pace)
        places = (divmod(position, self.used) for position in range(max(0, end - self.window), end))
        return list(
            dict.fromkeys(
                shuffled(self.used, self.seed, "shard order", turn)[place] if turn else place
                for turn, place in places
            )
        )

    @property
    def first(self) -> int:
        """Shards that must be there before the first step."""
        return min(self.window, 8)

    def sample(self) -> Ladders:
        """The first shards without their pictures, to fit the network's coding of the statistics."""
        return join([self._shard(number).without_frames() for number in range(self.first)])

    def batch(self, step: int) -> Ladders:
        """The ladders of a step."""
        numbers = self.at_step(step)
        for gone in set(self._held) - set(numbers):
            del self._held[gone]
        window = [self._shard(number) for number in numbers]
        sizes = [len(shard) for shard in window]
        total = sum(sizes)
        stream = torch_generator(self.seed, "reward batch", step)
        rounds = -(-self.batch_size // total)
        drawn = torch.cat([torch.randperm(total, generator=stream) for _ in range(rounds)])[: self.batch_size]
        parts, start = [], 0
        for shard, size in zip(window, sizes, strict=True):
            mine = drawn[(drawn >= start) & (drawn < start + size)]
            if len(mine):
                parts.append(shard.take(mine - start))
            start += size
        return join(parts)

    def _shard(self, number: int) -> Ladders:
        if number not in self._held:
            self._held[number] = self.shards[number]
        return self._held[number]
