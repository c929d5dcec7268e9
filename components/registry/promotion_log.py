"""The record of promotions: an ordered log in the registry's own store, from which the champion follows.

Each entry is a version of the registered model ``<model>-promotions``. The store gives versions their numbers
one at a time, in one transaction, and so puts entries of any number of writers into one order. An entry names
the entry it follows on (``expects``); it takes effect only if that one is still the newest that did. Of two
written at the same moment the store decides which comes first; the other is without effect and stays on the
record. So there is nothing to lock, nothing that expires, and no clock: a writer that is killed leaves either
a whole entry or none. Aliases are derived from the record, and mended by the next command if somebody died
between writing an entry and moving them.

What the record leads to is a stack of champions: a promotion puts a version on top, a rollback takes the top
one off, so that two rollbacks go back two champions and never forward to what was rolled back.
"""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from components.runtime.errors import InputError, shortened
from components.runtime.tracking.retry import PREFIX, TAG_CAP, call, is_busy, reachable

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
        version: the version it is about; of a rollback, the one that was gone back to.
        champion, previous: the aliases once it has taken effect; "" for none.
        expects: number of the entry it follows on; 0 for none.
        why: the reason in words.
        decision: SHA-256 of its decision record, "" where there is none.
        by: who wrote it: the tracking server's user, else the system's.
        at: UTC time by the writer's clock; the order is that of the numbers.
        replaced: the champion until then; "" for none, and in entries from before this was written down.
        seal: tells the version from a later one of the same number, "" where it carries none: MLflow counts
            from 1 again when a registered model is deleted and made anew.
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
    replaced: str = ""
    seal: str = ""
    number: int = 0
    effective: bool = False

    @property
    def words(self) -> str:
        """What happened: ``rolled back from version 2 to version 1``."""
        before = self.replaced or self.previous
        if self.action == "rolled back":
            return f"rolled back{f' from version {before}' if before else ''} to version {self.version}"
        after = f" in place of version {before}" if self.action == "promoted" and before else ""
        return f"version {self.version} {self.action}{after}"


class Champion(NamedTuple):
    """A version that became the champion, and the seal it had then ("" where that is not known)."""

    version: str
    seal: str = ""


@dataclass(frozen=True)
class State:
    """What the record says now.

    Attributes:
        head: number of its newest entry that took effect; 0 for none.
        champions: the champion, last, and before it those that rollbacks go back to, the oldest first.
    """

    head: int = 0
    champions: tuple[Champion, ...] = ()

    @property
    def champion(self) -> str | None:
        """The version that is the champion."""
        return self.champions[-1].version if self.champions else None

    @property
    def previous(self) -> str | None:
        """The version that a rollback goes back to."""
        return self.champions[-2].version if len(self.champions) > 1 else None

    def without(self, gone: Iterable[Champion]) -> State:
        """The state as it is where some versions are no longer there."""
        lost = set(gone)
        kept: list[Champion] = []
        for one in self.champions:
            if one not in lost and (not kept or kept[-1].version != one.version):
                kept.append(one)
        return State(self.head, tuple(kept))


_TAGS = (
    *("action", "version", "champion", "previous", "expects", "why", "decision", "by", "at", "token"),
    *("replaced", "seal"),
)


def folded(entries: Iterable[Entry]) -> tuple[State, list[Entry]]:
    """The state that entries lead to, and the entries in order, each marked with whether it took effect.

    An entry that follows on one that was deleted takes effect: what was deleted cannot be asked.
    """
    ordered = sorted(entries, key=lambda one: one.number)
    known = {entry.number for entry in ordered}
    state, marked = State(), []
    for entry in ordered:
        orphan = entry.expects > state.head and entry.expects not in known
        effective = entry.action != "refused" and (entry.expects == state.head or orphan)
        if effective:
            state = State(entry.number, _champions(state.champions, entry))
        marked.append(replace(entry, effective=effective))
    return state, marked


def _champions(before: tuple[Champion, ...], entry: Entry) -> tuple[Champion, ...]:
    """The stack of champions after an entry that took effect."""
    now = Champion(entry.champion, entry.seal)
    below = (Champion(entry.previous),) if entry.previous else ()
    if entry.action == "adopted":
        return (*below, now)
    if entry.action == "promoted":
        # An entry in between may have been deleted: this one says itself what it replaced.
        known = not below or (before and before[-1].version == entry.previous)
        return (*before, now) if known else (*before, *below, now)
    for place in reversed(range(len(before))):
        if before[place].version == entry.champion:
            return before[: place + 1]
    # Written by a version of the project whose second rollback went forward again.
    return (*before, now)


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
            why=shortened(entry.why, TAG_CAP),
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
