"""In what two versions differ."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.registry.gate.champion import difference
from components.registry.gate.gate import COMPARABLE, EvaluatedVersion
from components.registry.versions.store import Models
from components.runtime.tracking.step_run import flattened

_OWN = ("files.", "created")
"""Of a provenance: what differs between any two versions and says nothing."""


def lines(models: Models, one: str, other: str) -> Iterator[str]:
    """What differs in provenance, and in scores, the interval paired by prompt where that is possible.

    Raises:
        InputError: a version cannot be read, or was altered.
    """
    yield f"{models.name}: version {one} | version {other}"
    sides = []
    for version in (one, other):
        with tempfile.TemporaryDirectory(prefix="onlinevpo-diff-") as scratch:
            sides.append(flattened(models.provenance(version, Path(scratch)) or {}))
    for name in sorted(set(sides[0]) | set(sides[1])):
        mine, theirs = (side.get(name, "-") for side in sides)
        if mine != theirs and not name.startswith(_OWN):
            yield f"  {name}: {_short(mine)} | {_short(theirs)}"
    yield from _scores(models.evaluated(one), models.evaluated(other))


def _scores(one: EvaluatedVersion, other: EvaluatedVersion) -> Iterator[str]:
    differing = [
        words for name, words in COMPARABLE.items() if one.digests.get(name) != other.digests.get(name)
    ]
    if differing:
        yield f"scores are not comparable: other {' and other '.join(differing)}"
        return
    for key in sorted(one.evaluation):
        name = key.removeprefix("aligned/")
        if name == key or key not in other.evaluation:
            continue
        mine, theirs = one.evaluation[key], other.evaluation[key]
        figure = difference(other.rows, one.rows, name)
        ends = f" [{figure.low:+.4f}, {figure.high:+.4f}]" if figure and figure.known else ""
        if mine != theirs:
            yield f"  {name}: {mine:.4f} | {theirs:.4f}  {theirs - mine:+.4f}{ends}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
