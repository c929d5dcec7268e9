"""The pair ledger: one immutable row for every candidate ever sampled, with what became of it."""

from components.alignment.ledger.reader import LedgerPair, LedgerReader, read_pairs
from components.alignment.ledger.schema import ASPECT, SCHEMA, LedgerOrigin, kept_latents
from components.alignment.ledger.writer import LedgerWriter

__all__ = [
    "ASPECT", "SCHEMA", "LedgerOrigin", "LedgerPair", "LedgerReader", "LedgerWriter", "kept_latents",
    "read_pairs",
]  # fmt: skip
