"""Writing a ledger: a part for each iteration during a run, one table when it is published.

A part is written whole or not at all; a resumed run writes the same part again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save_file

from components.alignment.ledger.schema import (
    ASPECT,
    SCHEMA,
    USED,
    Latents,
    LedgerOrigin,
    content_digest,
    rows_of,
)
from components.runtime.io.files import atomic_file

if TYPE_CHECKING:
    from components.alignment.candidates.pairs import PairDecision
    from components.alignment.candidates.rollout import Group

LEDGER = "ledger.parquet"
LATENTS = "latents"


class LedgerWriter:
    """A ledger in the making, in a folder with a run's checkpoints. Only one process may use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, iteration: int) -> bool:
        """Return whether the part of an iteration is written."""
        return self._part(iteration).is_file()

    def write(
        self,
        iteration: int,
        groups: Sequence[Group],
        decisions: Sequence[PairDecision],
        origin: LedgerOrigin | Sequence[LedgerOrigin],
        latents: Latents,
        *,
        trained: bool,
    ) -> None:
        """Write one iteration's candidates and their kept latents.

        Args:
            groups: all processes', in the order of the rows; their own latents are not read.
            decisions: one for each group.
            origin: of all groups, or of each.
            latents: see `kept_latents`, of all processes.
            trained: whether the iteration trains on its pairs.
        """
        digests = {name: content_digest(clip) for name, clip in latents.items()}
        rows = rows_of(iteration, groups, decisions, origin, digests, trained=trained)
        # The table comes last: where it exists, so do its latents.
        if latents:
            tensors = {digests[name]: clip.contiguous() for name, clip in latents.items()}
            with atomic_file(latents_file(self.folder, iteration)) as file:
                save_file(tensors, file)
        aspects = dict.fromkeys(name for row in rows for name in row if name.startswith(ASPECT))
        schema = pa.schema([*SCHEMA, *((name, pa.float64()) for name in aspects), USED])
        table = pa.Table.from_pylist(rows, schema=schema)
        with atomic_file(self._part(iteration)) as file:
            pq.write_table(table, file)

    def publish(self, folder: Path, iterations: int) -> None:
        """Write the first `iterations` parts as one table, with their latents, into `folder`."""
        tables = [pq.read_table(self._part(number)) for number in range(iterations)]
        table = pa.concat_tables(tables, promote_options="default")
        # Parquet renames a list's items: the file says what the schema does.
        used = table.schema.get_field_index(USED.name)
        table = table.set_column(used, USED, table[USED.name].cast(USED.type))
        pq.write_table(table, folder / LEDGER)
        for number in range(iterations):
            source, target = latents_file(self.folder, number), latents_file(folder, number)
            if source.is_file():
                target.parent.mkdir(exist_ok=True)
                target.unlink(missing_ok=True)
                try:
                    os.link(source, target)  # gigabytes with a real model: one copy is enough
                except OSError:
                    shutil.copyfile(source, target)

    def _part(self, iteration: int) -> Path:
        return self.folder / f"{iteration:06d}.parquet"


def latents_file(folder: Path, iteration: int) -> Path:
    """Return the file in which a ledger keeps an iteration's latents, by their `content_digest`."""
    return folder / LATENTS / f"{iteration:06d}.safetensors"
