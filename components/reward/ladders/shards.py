"""The training ladders in shards: planned by number, built by worker processes, read back as they are needed.

A shard is a fixed number of ladders that depend on the plan and the shard's number alone, so it does not
matter who builds it, when, or beside how many others. It lies in a file that appears in one rename: a killed
run builds only what is not there. Memory holds the shards in use, whatever the corpus and the number of
ladders.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from components.reward.ladders.augment import vary
from components.reward.ladders.few_step import DrawnLadders
from components.reward.ladders.ladder import (
    NAMES,
    TENSORS,
    Ladders,
    build,
    join,
    levels_of,
    of_rungs,
    recipe_of,
    seen_types,
    shuffled,
)
from components.reward.ladders.sources import Clips, Material
from components.reward.params import LadderParams
from components.runtime.compute.devices import available_cpus, one_thread
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.seeds import derive
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file

SHARD = 64
"""Ladders in a shard: enough for the batched operations, few enough that training begins early."""


@dataclass(frozen=True)
class Pool:
    """Clips of one source, and how many ladders stand on them.

    Attributes:
        labelled: whether the clips are pristine, so that a full-reference label means something.
        first: clips better than `clips`, row by row, put before them; None where there are none.
        drawn: ladders whose every rung is there already, one for each of `clips`; None where damage makes
            them.
    """

    source: str
    clips: Clips
    ladders: int
    labelled: bool
    first: Clips | None = None
    drawn: DrawnLadders | None = None


@dataclass(frozen=True)
class Plan:
    """Every training ladder by number. A few kilobytes that a worker builds any shard from.

    Attributes:
        pools: the sources, all in one geometry.
        params: what the ladders are made of.
        seed: with a ladder's source and number fixes everything about it.
        pixels: whether a shard keeps the pictures; the statistics it has always.
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
        """The ladders of a shard: for each pool the numbers of its ladders. Every shard is a mix of all
        sources."""
        order = shuffled(len(self), self.seed, "ladder order")
        starts = [0]
        for pool in self.pools:
            starts.append(starts[-1] + pool.ladders)
        found: list[list[int]] = [[] for _ in self.pools]
        for number in order[shard * SHARD : (shard + 1) * SHARD]:
            place = next(i for i in range(len(self.pools)) if number < starts[i + 1])
            found[place].append(number - starts[place])
        return found

    def build(self, shard: int, stop: StopSignal | None = None) -> Ladders:
        """Shard number `shard`, 0 to shards - 1, the same bits in a worker and in a process of many threads.

        Raises:
            Interrupted: a stop was asked for.
        """
        parts = []
        with one_thread():
            for pool, numbers in zip(self.pools, self.members(shard), strict=True):
                if numbers:
                    parts.append(self._of(pool, sorted(numbers), stop))
        return join(parts)

    def _of(self, pool: Pool, numbers: list[int], stop: StopSignal | None) -> Ladders:
        if pool.drawn is not None:
            return self._drawn(pool, pool.drawn, numbers)
        own, counts = derive(self.seed, pool.source), self.params
        # A content comes again, varied otherwise, only when all have had their turn.
        rows = [
            shuffled(len(pool.clips), own, "order", number // len(pool.clips))[number % len(pool.clips)]
            for number in numbers
        ]
        seeds = [derive(own, "variation", number) for number in numbers]
        frames = vary(pool.clips.frames[rows], seeds)
        names = seen_types(counts.heldout_types)
        rungs = counts.rungs if pool.first is None else counts.rungs - 1
        built = build(
            frames,
            [f"{pool.clips.contents[row]}#{number}" for row, number in zip(rows, numbers, strict=True)],
            [recipe_of(number, names, counts.stressed, counts.composed, own) for number in numbers],
            torch.tensor([levels_of(number, rungs, own) for number in numbers]),
            source=pool.source,
            seed=own,
            labelled=pool.labelled,
            # Varied alike, a clip and the better one before it stay a pair.
            first=None if pool.first is None else vary(pool.first.frames[rows], seeds),
            stop=stop,
            cache=self.cache,
        )
        return built if self.pixels else built.without_frames()

    def _drawn(self, pool: Pool, drawn: DrawnLadders, numbers: list[int]) -> Ladders:
        """Ladders that the generator drew, each with all its rungs varied alike."""
        rungs = drawn.levels.shape[1]
        rows = [number * rungs + rung for number in numbers for rung in range(rungs)]
        seeds = [derive(self.seed, pool.source, "variation", n) for n in numbers for _ in range(rungs)]
        built = of_rungs(
            vary(drawn.clips[rows], seeds).unflatten(0, (len(numbers), rungs)),
            drawn.levels[numbers].float(),
            [(drawn.name,)] * len(numbers),
            [f"{pool.clips.contents[number]}#{number}" for number in numbers],
            source=pool.source,
        )
        return built if self.pixels else built.without_frames()


def plan_of(
    material: Material,
    params: LadderParams,
    seed: int,
    *,
    drawn: DrawnLadders | None = None,
    pixels: bool = False,
    cache: Path | None = None,
) -> Plan:
    """The plan of a run's training ladders.

    Args:
        drawn: ladders that the generator drew (`drawn.draw`).

    Raises:
        InputError: the sources that the params count have no clips.
    """
    pools: tuple[Pool, ...] = (
        Pool("world", material.train["world"], params.world, True),
        Pool("footage", material.train["footage"], params.footage, True),
        Pool("generated", material.samples_train, params.generated, False),
        Pool("reconstructed", material.reconstructed, params.reconstructed, False, material.originals),
    )
    if drawn is not None:
        pools += (Pool(drawn.name, Clips(drawn.clips, drawn.prompts), len(drawn), False, drawn=drawn),)
    kept = tuple(pool for pool in pools if len(pool.clips) and pool.ladders)
    if not kept:
        raise InputError("no training ladders: the sources that reward.ladders counts have no clips")
    return Plan(kept, params, derive(seed, "training ladders"), pixels, cache)


class ShardFolder:
    """The shards of a plan as files of one folder; whoever asks for a shard waits until it is there."""

    def __init__(
        self, folder: Path, plan: Plan, stop: StopSignal | None = None, *, builds: bool = True
    ) -> None:
        """Args:
        builds: whether shards are made here; otherwise some other process of this machine makes them.
        """
        self.folder, self.plan, self.stop, self.builds = folder, plan, stop, builds
        self.waited = 0.0
        """Seconds spent waiting for shards, or making them because there was nothing else to do."""
        self._ordered: dict[int, Future[None]] = {}

    def __len__(self) -> int:
        return self.plan.shards

    def rows(self, shard: int) -> int:
        """Ladders in a shard."""
        return min(SHARD, len(self.plan) - shard * SHARD)

    @contextmanager
    def workers(self, count: int | None = None) -> Iterator[None]:
        """While open, `count` processes make the shards that are missing, in order; at the end they stop.

        Args:
            count: by default one for every core that no process of the training has. With 0 this process
                makes each shard itself when it is asked for.
        """
        missing = [shard for shard in range(self.plan.shards) if not self.path(shard).is_file()]
        if count is None:
            count = available_cpus() - int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        # A process takes seconds to start: for a handful of shards it does not pay.
        count = min(count, len(missing) // 4)
        if not self.builds or count <= 0:
            yield
            return
        with ProcessPool(count) as pool:
            self._ordered = {i: pool.submit(_make, self.folder, self.plan, i) for i in missing}
            try:
                yield
            finally:
                self._ordered = {}

    def load(self, shard: int) -> Ladders:
        """A shard; built here and now where nobody else does.

        Raises:
            Interrupted: a stop was asked for while waiting.
        """
        began, path = time.monotonic(), self.path(shard)
        try:
            while not path.is_file():
                if self.stop is not None:
                    self.stop.raise_if_requested()
                if not self.builds:
                    time.sleep(0.05)
                    continue
                self._help(shard)
            return _read(path)
        finally:
            self.waited += time.monotonic() - began

    def _help(self, shard: int) -> None:
        """Do what brings `shard` nearer: wait for the worker that makes it, or make the next one that nobody
        does."""
        ordered = self._ordered.get(shard)
        if ordered is None or ordered.cancel():
            _make(self.folder, self.plan, shard, self.stop)
            return
        for number, future in self._ordered.items():
            if number > shard and future.cancel():
                _make(self.folder, self.plan, number, self.stop)
                break
        else:
            time.sleep(0.02)
        if ordered.done():
            ordered.result()

    def path(self, shard: int) -> Path:
        """Where a shard lies, or will."""
        return self.folder / f"{shard:06d}.safetensors"


def _make(folder: Path, plan: Plan, shard: int, stop: StopSignal | None = None) -> None:
    ladders = plan.build(shard, stop)
    about = {name: json.dumps(getattr(ladders, name)) for name in NAMES}
    with atomic_file(folder / f"{shard:06d}.safetensors") as aside:
        save_file({name: getattr(ladders, name).contiguous() for name in TENSORS}, aside, about)


def _read(path: Path) -> Ladders:
    try:
        with safe_open(path, "pt") as opened:
            found: dict[str, Any] = {name: opened.get_tensor(name).clone() for name in TENSORS}
            found |= {name: json.loads(opened.metadata()[name]) for name in NAMES}
    except (SafetensorError, OSError, KeyError) as error:
        raise InputError(f"{path}: not a whole shard of ladders ({error}); remove it") from error
    found["recipes"] = [tuple(recipe) for recipe in found["recipes"]]
    return Ladders(**found)
