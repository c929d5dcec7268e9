"""Pristine clips and prompts, split by content: the built-in world, packaged footage, the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.corpus.dataset import ClipRecord, Corpus
    from components.corpus.prompts import Prompt

__all__ = ["ClipRecord", "Corpus", "Prompt"]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to load; asking a command for --help should not need it.
    if name in ("ClipRecord", "Corpus"):
        from components.corpus import dataset

        return getattr(dataset, name)
    if name == "Prompt":
        from components.corpus.prompts import Prompt

        return Prompt
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
