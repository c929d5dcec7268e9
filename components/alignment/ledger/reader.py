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

STEPS = ("alignment", "ledger")
"""What publishes ledgers: the step, and `ledger replay`."""


@dataclass(frozen=True)
class LedgerPair:
    """An accepted pair as a ledger knows it; ``iteration`` is the one in which it was drawn."""

    iteration: int
    prompt: Prompt
    gap: float
    winner_seed: int
    loser_seed: int
    winner_latents: str
    loser_latents: str


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a ledger's table.

    Raises:
        InputError: not a Parquet file, or one that lacks columns.
    """
    try:
        table = pq.read_table(file)
        table.validate(full=True)
        types = dict(zip(table.schema.names, table.schema.types, strict=True))
        rows: list[dict[str, Any]] = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{file}: not a readable ledger ({one_line(error)})") from error
    missing = [name for name in (*SCHEMA.names, USED.name) if name not in types]
    if missing:
        raise InputError(
            f"{file}: has no column {', '.join(missing)}: not a ledger, or one of an older version; "
            "align anew to have one"
        )
    for wanted in (*SCHEMA, USED):
        if not types[wanted.name].equals(wanted.type):
            raise InputError(
                f"{file}: column {wanted.name} holds {types[wanted.name]}, a ledger's holds {wanted.type}"
            )
    return rows


class LedgerReader:
    """A published ledger. Open it with `LedgerReader.open`.

    Attributes:
        rows: one for each candidate, in the order in which they were drawn.
    """

    def __init__(self, artifact: Artifact) -> None:
        """See `open`."""
        self.artifact = artifact
        self.rows = read_rows(artifact.file(LEDGER))

    @classmethod
    def open(cls, uri: str | Path, generator: Artifact | None = None) -> LedgerReader:
        """Open and check a ledger: what the alignment step or `ledger replay` published.

        Args:
            uri: a local folder or s3:// URI.
            generator: the base that the candidates must have been drawn with; None asks for none.

        Raises:
            InputError: missing, altered, of another step or format, or of another base.
        """
        artifact = open_artifact(uri)
        step = artifact.manifest.step
        if step not in STEPS:
            raise InputError(
                f"{uri}: made by step {step}, holds no ledger; allowed is what "
                "`python -m components.alignment run` or `... ledger replay` published"
            )
        drawn = artifact.manifest.inputs.get("generator", "")
        if generator is not None and drawn != generator.manifest.digest:
            raise InputError(
                f"{uri}: a ledger of another base: its clips were drawn with generator {drawn[:12]}, "
                f"{generator.path} is {generator.manifest.digest[:12]}"
            )
        return cls(artifact)

    @property
    def iterations(self) -> int:
        """Iterations of the run that drew the candidates."""
        return 1 + max((int(row["iteration"]) for row in self.rows), default=-1)

    @property
    def candidates(self) -> int:
        """Clips that were drawn."""
        return len(self.rows)

    def groups(self) -> dict[tuple[int, str], list[dict[str, Any]]]:
        """Rows by iteration and prompt id, in order."""
        found: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for row in self.rows:
            found.setdefault((row["iteration"], row["prompt_id"]), []).append(row)
        return found

    def clip(self, iteration: int, digest: str) -> Tensor:
        """Return kept latents, float32 (C, T, h, w) on the host.

        Raises:
            InputError: they are not there, or are not what their name says.
        """
        file = latents_file(self.artifact.path, iteration)
        try:
            with safe_open(file, framework="pt") as opened:
                found: Tensor = opened.get_tensor(digest)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file}: latents {digest[:12]} cannot be read ({error})") from error
        if content_digest(found) != digest:
            raise InputError(f"{file}: latents {digest[:12]} are not what their digest says")
        return found.float()

    @property
    def pairs(self) -> list[LedgerPair]:
        """The accepted pairs, in the order in which they were drawn."""
        found = []
        for (iteration, prompt_id), group in self.groups().items():
            sides = {row["role"]: row for row in group if row["role"]}
            if group[0]["verdict"] != "accepted" or set(sides) != {"winner", "loser"}:
                continue
            winner, loser = sides["winner"], sides["loser"]
            prompt = Prompt(prompt_id, winner["prompt"], "train")
            found.append(
                LedgerPair(
                    iteration, prompt, winner["gap"], winner["seed"], loser["seed"], winner["latents"],
                    loser["latents"],
                )
            )  # fmt: skip
        return found

    def latents(self, pair: LedgerPair) -> tuple[Tensor, Tensor]:
        """Return winner and loser, see `clip`."""
        return self.clip(pair.iteration, pair.winner_latents), self.clip(pair.iteration, pair.loser_latents)


def read_pairs(uri: str | Path, generator: Artifact | None = None) -> LedgerReader:
    """Open a ledger to train from: every accepted pair's latents are kept in it.

    Raises:
        InputError: see `LedgerReader.open`; or no pair was accepted, or latents were not kept.
    """
    ledger = LedgerReader.open(uri, generator)
    pairs: Sequence[LedgerPair] = ledger.pairs
    if not pairs:
        raise InputError(f"{uri}: none of {len(ledger.groups())} groups gave a pair; nothing to train from")
    bare = sum(not (pair.winner_latents and pair.loser_latents) for pair in pairs)
    if bare:
        raise InputError(
            f"{uri}: {bare} of {len(pairs)} pairs have no latents; align with "
            "alignment.keep_latents = pairs (the default) or all to have them"
        )
    return ledger
