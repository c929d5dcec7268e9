"""Versions of a reward that is refreshed while a policy is aligned to it: which there were, which judged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from components.runtime.errors import InputError

VERSIONS = "versions.json"


@dataclass(frozen=True)
class RewardVersion:
    """One version of a reward; number 0 is the one that the reward step published.

    Attributes:
        digest: of the files that decide its scores, see `base.digest_of`; empty where its training made none.
        parent: number of the version whose training it continues.
        iteration: of the alignment, counted from 0, on whose samples it was trained.
        steps: optimiser steps it was trained beyond its parent.
        adopted: whether it went on to judge. A version that was not is kept as this record only.
        reasons: why it was not.
        checks: what that was decided by, each measured on the same held-out clips: name -> value of the
            version compared with ("before"), its own ("after"), and the least the gate asks ("least"), where
            the gate asks for it.
        metrics: the flat numbers of its card.
    """

    number: int
    digest: str = ""
    parent: int | None = None
    iteration: int | None = None
    steps: int = 0
    adopted: bool = True
    reasons: tuple[str, ...] = ()
    checks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Name of its folder beside versions.json."""
        return f"v{self.number}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: Any) -> RewardVersion:
        """What `as_json` gave, also by way of a JSON file.

        Raises:
            ValueError: it is not such a record.
        """
        return TypeAdapter(cls).validate_python(values)


def write_versions(folder: Path, versions: Sequence[RewardVersion]) -> None:
    """Write versions.json into a folder."""
    text = json.dumps({"versions": [version.as_json() for version in versions]}, indent=2)
    (folder / VERSIONS).write_text(text + "\n", encoding="utf-8")


def read_versions(folder: Path) -> list[RewardVersion]:
    """Read versions.json of a folder; no versions where there is none.

    Raises:
        InputError: it is not a record of versions; the message names the file.
    """
    file = folder / VERSIONS
    if not file.is_file():
        return []
    try:
        return [RewardVersion.of(values) for values in json.loads(file.read_text("utf-8"))["versions"]]
    except (ValueError, KeyError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{file}: not a record of reward versions: {first}") from error


def judging(versions: Iterable[RewardVersion]) -> RewardVersion:
    """The version that judges after all of these: the last that was adopted."""
    return [version for version in versions if version.adopted][-1]
