"""The plan of the training ladders: which there are, by number, and how each shard of them is built."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from components.reward.ladders.augment import vary
from components.reward.ladders.ladder import (
    Ladders,
    build,
    join,
    ladders_of_clips,
    levels_of,
    recipe_of,
    seen_types,
    shuffled,
)
from components.reward.ladders.sources import LadderSources, Pool
from components.reward.params import LadderParams
from components.runtime.compute.devices import one_thread
from components.runtime.compute.seeds import derive
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError

#: Ladders in a shard: enough for the batched operations, few enough that training begins early.
SHARD = 64


@dataclass(frozen=True)
class ShardPlan:
    """Every training ladder by number. A few kilobytes that a worker builds any shard from.

    Attributes:
        pools: the sources, all in one geometry.
        params: what the ladders are made of.
        seed: with a ladder's source and number fixes everything about it.
        pixels: whether a shard keeps the pictures beside the statistics.
        cache: folder of labels measured before, None for none.
    """

    pools: tuple[Pool, ...]
    params: LadderParams
    seed: int
    pixels: bool = False
    cache: Path | None = None

    def __len__(self) -> int:
        return sum(pool.ladders for pool in self.pools)

    @property
    def shards(self) -> int:
        """Number of shards; the last may be smaller."""
        return -(-len(self) // SHARD)

    def members(self, shard: int) -> list[list[int]]:
        """The numbers of a shard's ladders, a list a pool. Every shard is a mix of all sources."""
        order = shuffled(len(self), self.seed, "ladder order")
        starts = list(accumulate((pool.ladders for pool in self.pools), initial=0))
        numbers: list[list[int]] = [[] for _ in self.pools]
        for number in order[shard * SHARD : (shard + 1) * SHARD]:
            place = bisect_right(starts, number) - 1
            numbers[place].append(number - starts[place])
        return numbers

    def build(self, shard: int, stop: StopSignal | None = None) -> Ladders:
        """Shard number `shard`, 0 to shards - 1, the same bits in a worker and in a process of many threads.

        Raises:
            Interrupted: a stop was asked for.
        """
        with one_thread():
            members = zip(self.pools, map(sorted, self.members(shard)), strict=True)
            ladders = join([self._build(pool, numbers, stop) for pool, numbers in members if numbers])
        return ladders if self.pixels else ladders.without_frames()

    def _build(self, pool: Pool, numbers: list[int], stop: StopSignal | None) -> Ladders:
        if pool.levels is not None:
            return self._drawn(pool, pool.levels[numbers], numbers)
        seed, params = derive(self.seed, pool.source), self.params
        # A content comes again, varied otherwise, only when all have had their turn.
        count = len(pool.clips)
        rows = [shuffled(count, seed, "order", number // count)[number % count] for number in numbers]
        seeds = [derive(seed, "variation", number) for number in numbers]
        names = seen_types(params.heldout_types)
        length = params.clips_per_ladder - (pool.first is not None)
        return build(
            vary(pool.clips.frames[rows], seeds),
            [f"{pool.clips.contents[row]}#{number}" for row, number in zip(rows, numbers, strict=True)],
            [recipe_of(number, names, params.stressed, params.composed, seed) for number in numbers],
            torch.tensor([levels_of(number, length, seed) for number in numbers]),
            source=pool.source,
            seed=seed,
            labelled=pool.labelled,
            # Varied alike, a clip and the better one before it stay a pair.
            first=None if pool.first is None else vary(pool.first.frames[rows], seeds),
            stop=stop,
            cache=self.cache,
        )

    def _drawn(self, pool: Pool, levels: Tensor, numbers: list[int]) -> Ladders:
        """Ladders that the generator drew, all clips of one varied alike."""
        length = levels.shape[1]
        rows = [number * length + place for number in numbers for place in range(length)]
        seeds = [derive(self.seed, pool.source, "variation", n) for n in numbers for _ in range(length)]
        return ladders_of_clips(
            vary(pool.clips.frames[rows], seeds).unflatten(0, levels.shape),
            levels.float(),
            [(pool.source,)] * len(numbers),
            [f"{pool.clips.contents[number]}#{number}" for number in numbers],
            source=pool.source,
        )


def plan_of(
    sources: LadderSources,
    params: LadderParams,
    seed: int,
    *,
    drawn: Pool | None = None,
    pixels: bool = False,
    cache: Path | None = None,
) -> ShardPlan:
    """The plan of a run's training ladders.

    Args:
        drawn: ladders that the generator drew (`few_step.draw`).

    Raises:
        InputError: the sources that the params count have no clips.
    """
    pools: tuple[Pool, ...] = (
        Pool("world", sources.train["world"], params.world, True),
        Pool("footage", sources.train["footage"], params.footage, True),
        Pool("generated", sources.samples_train, params.generated, False),
        Pool("reconstructed", sources.reconstructed, params.reconstructed, False, sources.originals),
        *([] if drawn is None else [drawn]),
    )
    kept = tuple(pool for pool in pools if len(pool.clips) and pool.ladders)
    if not kept:
        raise InputError("no training ladders: the sources that reward.ladders counts have no clips")
    return ShardPlan(kept, params, derive(seed, "training ladders"), pixels, cache)
