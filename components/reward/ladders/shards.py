"""The training ladders in shards: built by worker processes, read back as they are needed.

A shard is a fixed number of ladders that depend on the plan and the shard's number alone, so it does not
matter which process builds it, or when. Its file appears in one rename: a run that was killed builds only the
missing ones. Memory holds the shards in use, whatever the size of the corpus and the number of ladders.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from components.reward.ladders.ladder import Ladders
from components.reward.ladders.ladder_file import read_ladders, write_ladders
from components.reward.ladders.plan import ShardPlan
from components.runtime.compute.devices import available_cpus
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.signals import StopSignal


class ShardFolder:
    """The shards of a plan as files of one folder; reading one waits until it is there.

    Attributes:
        waited: seconds spent reading shards, most of them waiting for one or building it.
    """

    def __init__(
        self, folder: Path, plan: ShardPlan, stop: StopSignal | None = None, *, builds: bool = True
    ) -> None:
        """Args:
        builds: whether this process builds shards; otherwise another process of this machine does.
        """
        self.folder, self.plan, self.stop, self.builds = folder, plan, stop, builds
        self.waited = 0.0
        self._ordered: dict[int, Future[None]] = {}

    def __len__(self) -> int:
        return self.plan.shards

    @contextmanager
    def workers(self, count: int | None = None) -> Iterator[None]:
        """Inside the block `count` processes build the missing shards, in order.

        Args:
            count: by default one for every core that the training's processes leave free. With 0 this
                process builds each shard itself when it is read.
        """
        missing = [shard for shard in range(self.plan.shards) if not self.path(shard).is_file()]
        if count is None:
            count = available_cpus() - int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        # A process takes seconds to start, too long for a few shards.
        count = min(count, len(missing) // 4)
        if not self.builds or count <= 0:
            yield
            return
        with ProcessPool(count) as pool:
            self._ordered = {i: pool.submit(_make, self.path(i), self.plan, i) for i in missing}
            try:
                yield
            finally:
                self._ordered = {}

    def __getitem__(self, shard: int, /) -> Ladders:
        """A shard, as soon as it is there; built here if no other process builds it.

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
            return read_ladders(path, "not a whole shard of ladders; remove it")[0]
        finally:
            self.waited += time.monotonic() - began

    def _help(self, shard: int) -> None:
        """Builds `shard` if no worker has begun it; otherwise builds a later one, or waits a moment."""
        ordered = self._ordered.get(shard)
        if ordered is None or ordered.cancel():
            _make(self.path(shard), self.plan, shard, self.stop)
            return
        for number, future in self._ordered.items():
            if number > shard and future.cancel():
                _make(self.path(number), self.plan, number, self.stop)
                break
        else:
            time.sleep(0.02)
        if ordered.done():
            ordered.result()

    def path(self, shard: int) -> Path:
        """Where a shard lies, or will."""
        return self.folder / f"{shard:06d}.safetensors"


def _make(path: Path, plan: ShardPlan, shard: int, stop: StopSignal | None = None) -> None:
    write_ladders(path, plan.build(shard, stop), {})
