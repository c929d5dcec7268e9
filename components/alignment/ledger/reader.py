"""Reading a published ledger: its rows, its pairs, and their latents one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from torch import Tensor

from components.alignment.ledger.schema import SCHEMA, USED, content_digest
from components.alignment.ledger.writer import LEDGER, latents_file
from components.corpus.prompts import Prompt
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.errors import InputError, one_line

#: What publishes ledgers: the step, and `ledger rescore`.
STEPS = ("alignment", "ledger")
Row = dict[str, Any]


@dataclass(frozen=True)
class LedgerPair:
    """An accepted pair of a ledger: the rows of its clips; `iteration` is the one that sampled them."""

    iteration: int
    prompt: Prompt
    gap: float
    winner: Row
    loser: Row


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a ledger's table.

    Raises:
        InputError: not a Parquet file, or one that lacks columns.
    """
    try:
        table = pq.read_table(file)
        table.validate(full=True)
        types = dict(zip(table.schema.names, table.schema.types, strict=True))
        rows: list[Row] = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{file}: not a readable ledger ({one_line(error)})") from error
    missing = [name for name in (*SCHEMA.names, USED.name) if name not in types]
    if missing:
        raise InputError(
            f"{file}: has no column {', '.join(missing)}: not a ledger, or one of an older version; "
            "rerun alignment to create one"
        )
    for wanted in (*SCHEMA, USED):
        if not types[wanted.name].equals(wanted.type):
            raise InputError(
                f"{file}: column {wanted.name} holds {types[wanted.name]}, a ledger's holds {wanted.type}"
            )
    return rows


def grouped_rows(rows: Sequence[Row]) -> dict[tuple[int, str], list[Row]]:
    """Return rows by iteration and prompt id, in order."""
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["iteration"], row["prompt_id"]), []).append(row)
    return groups


class LedgerReader:
    """A published ledger. Open it with `LedgerReader.open`.

    Attributes:
        rows: one for each candidate, in sampling order.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.rows = read_rows(artifact.file(LEDGER))

    @classmethod
    def open(cls, uri: str | Path, generator: Artifact | None = None) -> LedgerReader:
        """Open and check a ledger: what the alignment step or `ledger rescore` published.

        Args:
            uri: a local folder or s3:// URI.
            generator: the base that must have sampled the candidates; None allows any.

        Raises:
            InputError: missing, altered, of another step or format, or of another base.
        """
        artifact = open_artifact(uri)
        step = artifact.manifest.step
        if step not in STEPS:
            raise InputError(
                f"{uri}: made by step {step}, holds no ledger; it must be published by "
                "`python -m components.alignment run` or `... ledger rescore`"
            )
        drawn = artifact.manifest.inputs.get("generator", "")
        if generator is not None and drawn != generator.manifest.digest:
            raise InputError(
                f"{uri}: a ledger of another base: its clips were sampled with generator {drawn[:12]}, "
                f"{generator.path} is {generator.manifest.digest[:12]}"
            )
        return cls(artifact)

    @property
    def iterations(self) -> int:
        """Iterations of the run that sampled the candidates."""
        return 1 + max((int(row["iteration"]) for row in self.rows), default=-1)

    def clip(self, iteration: int, digest: str) -> Tensor:
        """Return kept latents, float32 (C, T, h, w) on the host.

        Raises:
            InputError: they are missing, or do not match their digest.
        """
        file = latents_file(self.artifact.path, iteration)
        try:
            with safe_open(file, framework="pt") as opened:
                latents: Tensor = opened.get_tensor(digest)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file}: latents {digest[:12]} cannot be read ({error})") from error
        if content_digest(latents) != digest:
            raise InputError(f"{file}: latents {digest[:12]} do not match their digest")
        return latents.float()

    @property
    def pairs(self) -> list[LedgerPair]:
        """The accepted pairs, in sampling order."""
        pairs = []
        for (iteration, prompt_id), group in grouped_rows(self.rows).items():
            sides = {row["role"]: row for row in group if row["role"]}
            if group[0]["verdict"] == "accepted" and set(sides) == {"winner", "loser"}:
                winner, loser = sides["winner"], sides["loser"]
                prompt = Prompt(prompt_id, winner["prompt"], "train")
                pairs.append(LedgerPair(iteration, prompt, winner["gap"], winner, loser))
        return pairs

    def latents(self, pair: LedgerPair) -> tuple[Tensor, Tensor]:
        """Return the latents of winner and loser, see `clip`."""
        winner, loser = (self.clip(pair.iteration, row["latents"]) for row in (pair.winner, pair.loser))
        return winner, loser


def read_pairs(uri: str | Path, generator: Artifact | None = None) -> LedgerReader:
    """Open a ledger to train on: it must hold the latents of every accepted pair.

    Raises:
        InputError: see `LedgerReader.open`; or no pair was accepted, or latents were not kept.
    """
    ledger = LedgerReader.open(uri, generator)
    pairs = ledger.pairs
    if not pairs:
        groups = len(grouped_rows(ledger.rows))
        raise InputError(f"{uri}: none of {groups} groups gave a pair; nothing to train on")
    bare = sum(not (pair.winner["latents"] and pair.loser["latents"]) for pair in pairs)
    if bare:
        raise InputError(
            f"{uri}: {bare} of {len(pairs)} pairs have no latents; run alignment with "
            "alignment.keep_latents = pairs (the default) or all to keep them"
        )
    return ledger
