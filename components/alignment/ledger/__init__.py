"""The pair ledger: one immutable row for every candidate ever drawn, with what became of it."""

from components.alignment.ledger.reader import LedgerPair, LedgerReader, read_pairs
from components.alignment.ledger.schema import ASPECT, SCHEMA, Origin, kept_latents
from components.alignment.ledger.writer import LedgerWriter

__all__ = [
    "ASPECT",
    "SCHEMA",
    "LedgerPair",
    "LedgerReader",
    "LedgerWriter",
    "Origin",
    "kept_latents",
    "read_pairs",
]
