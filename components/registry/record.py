"""The record of promotions: an ordered log in the registry's own store, from which the champion follows.

Each entry is a version of the registered model ``<model>-promotions``. The store gives versions their numbers
one at a time, in one transaction, and so puts entries of any number of writers into one order. An entry names
the entry it follows on (``expects``); it takes effect only if that one is still the newest that did. Of two
written at the same moment the store decides which comes first; the other is without effect and stays on the
record. So there is nothing to lock, nothing that expires, and no clock: a writer that is killed leaves either
a whole entry or none. Aliases are derived from the record, and mended by the next command if somebody died
between writing an entry and moving them.
"""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from components.registry.connection import PREFIX, TAG_CAP, call, is_busy, reachable
from components.runtime.errors import InputError

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
SUFFIX = "-promotions"
Action = Literal["adopted", "promoted", "rolled back", "refused"]
ATTEMPTS = 100
"""Entries that others may get in before ours until we give up."""


@dataclass(frozen=True)
class Entry:
    """One line of the record.

    Attributes:
        action: what was decided. A refusal changes nothing and is never an `expects`.
        version: the version it is about.
        champion, previous: the aliases once it has taken effect; "" for none.
        expects: number of the entry it follows on; 0 for none.
        why: the reason in words.
        decision: SHA-256 of its decision record, "" where there is none.
        by: who wrote it: the tracking server's user, else the system's.
        at: UTC time by the writer's clock; the order is that of the numbers.
        token: tells this attempt from every other, also where a client sent it twice.
        number: its place, given by the store; 0 until it is written.
        effective: whether it took effect.
    """

    action: Action
    version: str
    champion: str
    previous: str
    expects: int
    why: str
    decision: str = ""
    by: str = ""
    at: str = ""
    token: str = ""
    number: int = 0
    effective: bool = False


@dataclass(frozen=True)
class State:
    """What the record says now: its newest entry that took effect (0: none) and the aliases it leads to."""

    head: int = 0
    champion: str | None = None
    previous: str | None = None


_TAGS = ("action", "version", "champion", "previous", "expects", "why", "decision", "by", "at", "token")


def folded(entries: Iterable[Entry]) -> tuple[State, list[Entry]]:
    """The state that entries lead to, and the entries in order, each marked with whether it took effect."""
    state, marked = State(), []
    for entry in sorted(entries, key=lambda one: one.number):
        effective = entry.action != "refused" and entry.expects == state.head
        if effective:
            state = State(entry.number, entry.champion or None, entry.previous or None)
        marked.append(replace(entry, effective=effective))
    return state, marked


class Record:
    """The record of one registered model.

    Raises:
        InputError: (every method) the registry cannot be reached, or an entry of it is damaged.
    """

    def __init__(self, client: Any, model: str) -> None:
        self.model, self.name = model, model + SUFFIX
        self._client = client

    def read(self) -> tuple[State, list[Entry]]:
        """The present state and every entry, oldest first."""
        return folded(self._entries())

    def append(self, entry: Entry) -> Entry:
        """Write an entry; what comes back says whether it took effect."""
        made = replace(
            entry,
            token=secrets.token_hex(16),
            by=os.environ.get("MLFLOW_TRACKING_USERNAME") or _user(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            why=entry.why[:TAG_CAP],
        )
        self._make_model()
        call(lambda: self._write(made), f"record {self.name}")
        # A client that heard no answer may have sent it twice: the first of the two is the one that counts.
        ours = [one for one in self.read()[1] if one.token == made.token]
        if not ours:
            raise InputError(f"{self.name}: the entry just written is not there; was it deleted?")
        return next((one for one in ours if one.effective), ours[0])

    def _write(self, entry: Entry) -> None:
        # Tried again after "busy", and that may have been said of an entry that was written.
        if any(one.token == entry.token for one in self._entries()):
            return
        tags = {PREFIX + name: str(getattr(entry, name)) for name in _TAGS}
        source = f"models:/{self.model}/{entry.version}"
        try:
            self._client.create_model_version(self.name, source, tags=tags, await_creation_for=0)
        except Exception as error:
            if is_busy(error) and any(one.token == entry.token for one in self._entries()):
                return
            raise

    def _entries(self) -> list[Entry]:
        found, page = [], None
        while True:
            with reachable(f"record {self.name}"):
                rows = self._client.search_model_versions(f"name='{self.name}'", 1000, page_token=page)
            found += [self._parsed(row) for row in rows]
            page = rows.token
            if not page:
                return found

    def _parsed(self, row: Any) -> Entry:
        tags = {name.removeprefix(PREFIX): value for name, value in row.tags.items()}
        try:
            action: Action = tags["action"]
            if action not in ("adopted", "promoted", "rolled back", "refused"):
                raise ValueError(action)
            given = {name: tags.get(name, "") for name in _TAGS} | {"expects": int(tags["expects"])}
            return Entry(**given, number=int(row.version))  # type: ignore[arg-type]
        except (KeyError, ValueError) as error:
            raise InputError(f"{self.name}: entry {row.version} is damaged: {error!r}") from error

    def _make_model(self) -> None:
        from mlflow.exceptions import MlflowException

        def make() -> None:
            try:
                self._client.create_registered_model(
                    self.name, description=f"Record of promotions of {self.model}. Do not edit or delete."
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

        call(make, f"record {self.name}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        return str(os.getuid())
