"""Writing a ledger: a part for each iteration while a run goes on, one table when it is published.

A part is written whole or not at all, and written again after a resume it is the same part. What pairs were
used for comes later than the part, so it lies in files of its own until the table is made.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save_file

from components.alignment.ledger.schema import ASPECT, SCHEMA, USED, Latents, Origin, content_digest, rows_of
from components.runtime.io.files import atomic_file, write_atomically

if TYPE_CHECKING:
    from components.alignment.candidates.pairs import Verdict
    from components.alignment.candidates.rollout import Group

LEDGER = "ledger.parquet"
LATENTS = "latents"


class LedgerWriter:
    """A ledger in the making, in a folder that lives with a run's checkpoints. For one process to use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, iteration: int) -> bool:
        """Whether the part of an iteration is there, whole."""
        return self._part(iteration).is_file()

    def write(
        self,
        iteration: int,
        groups: Sequence[Group],
        verdicts: Sequence[Verdict],
        origin: Origin | Sequence[Origin],
        latents: Latents,
    ) -> None:
        """Write one iteration's candidates, and the latents that are kept of them.

        Args:
            groups: all processes', in the order of the rows; their own latents are not looked at.
            verdicts: one for each group.
            origin: of all groups, or of each.
            latents: see `kept_latents`, of all processes.
        """
        digests = {name: content_digest(clip) for name, clip in latents.items()}
        rows = rows_of(iteration, groups, verdicts, origin, digests)
        # The table comes last: where it is, its latents are.
        if latents:
            tensors = {digests[name]: clip.contiguous() for name, clip in latents.items()}
            with atomic_file(latents_file(self.folder, iteration)) as file:
                save_file(tensors, file)
        aspects = dict.fromkeys(name for row in rows for name in row if name.startswith(ASPECT))
        schema = pa.schema([*SCHEMA, *((name, pa.float64()) for name in aspects)])
        table = pa.Table.from_pylist(rows, schema=schema)
        with atomic_file(self._part(iteration)) as file:
            pq.write_table(table, file)

    def use(self, iteration: int, pairs: Iterable[tuple[int, str]]) -> None:
        """Say which pairs an iteration trained on, each as (iteration it was drawn in, prompt id)."""
        text = json.dumps(sorted({(drawn, prompt) for drawn, prompt in pairs}))
        write_atomically(self._use(iteration), text)

    def publish(self, folder: Path, iterations: int) -> None:
        """Write the first ``iterations`` parts as one table, with their latents, into ``folder``."""
        used = self._used(iterations)
        tables = [_with_uses(pq.read_table(self._part(number)), used) for number in range(iterations)]
        table = pa.concat_tables(tables, promote_options="default")
        pq.write_table(table, folder / LEDGER)
        for number in range(iterations):
            source = latents_file(self.folder, number)
            if source.is_file():
                target = latents_file(folder, number)
                target.parent.mkdir(exist_ok=True)
                target.unlink(missing_ok=True)
                try:
                    os.link(source, target)  # gigabytes with a real model: one copy of them is enough
                except OSError:
                    shutil.copyfile(source, target)

    def _part(self, iteration: int) -> Path:
        return self.folder / f"{iteration:06d}.parquet"

    def _use(self, iteration: int) -> Path:
        return self.folder / "uses" / f"{iteration:06d}.json"

    def _used(self, iterations: int) -> dict[tuple[int, str], list[int]]:
        found: dict[tuple[int, str], list[int]] = defaultdict(list)
        for number in range(iterations):
            if self._use(number).is_file():
                for drawn, prompt in json.loads(self._use(number).read_text()):
                    found[drawn, prompt].append(number)
        return found


def latents_file(folder: Path, iteration: int) -> Path:
    """Where a ledger in ``folder`` keeps an iteration's latents, by their `content_digest`."""
    return folder / LATENTS / f"{iteration:06d}.safetensors"


def _with_uses(part: pa.Table, used: dict[tuple[int, str], list[int]]) -> pa.Table:
    rows: list[dict[str, Any]] = part.select(["iteration", "prompt_id", "role"]).to_pylist()
    column = [used.get((row["iteration"], row["prompt_id"]), []) if row["role"] else [] for row in rows]
    return part.append_column(USED, pa.array(column, USED.type))
