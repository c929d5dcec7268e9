"""In what two versions differ."""

from __future__ import annotations

from collections.abc import Iterator

from components.registry.gate.champion import difference
from components.registry.gate.gate import COMPARABLE, EvaluatedVersion
from components.registry.versions.files import evaluated, provenance
from components.registry.versions.store import RegisteredModel
from components.runtime.tracking.step_run import flattened

#: Of a provenance: what differs between any two versions and says nothing.
_SKIPPED = ("files.", "created")


def lines(model: RegisteredModel, left: str, right: str) -> Iterator[str]:
    """What differs in provenance, and in scores, the interval paired by prompt where that is possible.

    Raises:
        InputError: a version cannot be read, or was altered.
    """
    yield f"{model.name}: version {left} | version {right}"
    before, after = (flattened(provenance(model, version) or {}) for version in (left, right))
    for name in sorted(before.keys() | after.keys()):
        values = before.get(name, "-"), after.get(name, "-")
        if values[0] != values[1] and not name.startswith(_SKIPPED):
            yield f"  {name}: {' | '.join(_short(value) for value in values)}"
    yield from _scores(evaluated(model, left), evaluated(model, right))


def _scores(left: EvaluatedVersion, right: EvaluatedVersion) -> Iterator[str]:
    differing = [
        words for name, words in COMPARABLE.items() if left.digests.get(name) != right.digests.get(name)
    ]
    if differing:
        yield f"scores are not comparable: other {' and other '.join(differing)}"
        return
    for key in sorted(left.evaluation.keys() & right.evaluation.keys()):
        name, before, after = key.removeprefix("aligned/"), left.evaluation[key], right.evaluation[key]
        if name != key and before != after:
            change = difference(right.rows, left.rows, name)
            ends = f" [{change.low:+.4f}, {change.high:+.4f}]" if change and change.known else ""
            yield f"  {name}: {before:.4f} | {after:.4f}  {after - before:+.4f}{ends}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
