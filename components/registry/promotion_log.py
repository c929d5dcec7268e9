"""The promotion log: promotions are serialised here, by compare-and-set on an ordered log; no lock.

Each entry is a version of the registered model `<model>-promotions`. The store gives versions their numbers
one at a time, in one transaction, and so puts the entries of any number of writers into one order. An entry
names the entry that it follows on (`expects`) and takes effect only if that one is still the newest in
effect. Of two written at the same moment the store decides which comes first; the other has no effect and
stays in the log. So nothing is locked, nothing expires, no clock counts: a writer that is killed leaves a
whole entry or none. Aliases are derived from the log; the next command moves them if a writer died before it
did.

The log leads to a stack of champions: a promotion puts a version on top, a rollback takes the top one off.
Two rollbacks go back two champions, and never forward to what was rolled back.
"""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args

from components.registry.client import RetryingClient
from components.runtime.errors import InputError, shortened
from components.runtime.tracking.retry import PREFIX, TAG_CAP, call, is_busy

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
SUFFIX = "-promotions"
Action = Literal["adopted", "promoted", "rolled back", "refused"]
#: Entries of others that may come before ours until we give up.
ATTEMPTS = 100


@dataclass(frozen=True)
class LogEntry:
    """One entry of the log.

    Attributes:
        action: what was decided. A refusal changes nothing and is never an `expects`.
        version: the version it is about; of a rollback, the one that was gone back to.
        champion, previous: the aliases once it has taken effect; "" for none.
        expects: number of the entry it follows on; 0 for none.
        why: the reason in words.
        decision: SHA-256 of its decision record, "" where there is none.
        by: who wrote it: the tracking server's user, else the system's.
        at: UTC time by the writer's clock; the order is that of the numbers.
        token: tells this attempt from every other, also where a client sent it twice.
        replaced: the champion until then; "" for none, and in entries from before this was written down.
        seal: tells the version from a later one of the same number, "" where it carries none: MLflow counts
            from 1 again when a registered model is deleted and made anew.
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
        """What happened: `rolled back from version 2 to version 1`."""
        before = self.replaced or self.previous
        if self.action == "rolled back":
            return f"rolled back{f' from version {before}' if before else ''} to version {self.version}"
        after = f" in place of version {before}" if self.action == "promoted" and before else ""
        return f"version {self.version} {self.action}{after}"


#: Fields of an entry that are stored as tags of its version.
_STORED = tuple(name for name in LogEntry.__dataclass_fields__ if name not in ("number", "effective"))


class Champion(NamedTuple):
    """A version that became the champion, and the seal it had then ("" where that is not known)."""

    version: str
    seal: str = ""


@dataclass(frozen=True)
class LogState:
    """What the log says now.

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

    def without(self, deleted: Iterable[Champion]) -> LogState:
        """The state without some versions; of neighbours with the same number the first is kept."""
        kept: list[Champion] = []
        for champion in self.champions:
            if champion not in deleted and (not kept or kept[-1].version != champion.version):
                kept.append(champion)
        return LogState(self.head, tuple(kept))


def replay(entries: Iterable[LogEntry]) -> tuple[LogState, list[LogEntry]]:
    """The state that entries lead to, and the entries in order, each marked with whether it took effect.

    An entry that follows on one that was deleted takes effect: nothing is known of the deleted one.
    """
    ordered = sorted(entries, key=lambda entry: entry.number)
    known = {entry.number for entry in ordered}
    state, marked = LogState(), []
    for entry in ordered:
        orphan = entry.expects > state.head and entry.expects not in known
        effective = entry.action != "refused" and (entry.expects == state.head or orphan)
        if effective:
            state = LogState(entry.number, _stack_after(state.champions, entry))
        marked.append(replace(entry, effective=effective))
    return state, marked


def _stack_after(before: tuple[Champion, ...], entry: LogEntry) -> tuple[Champion, ...]:
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
    # Written by a release whose second rollback went forward again.
    return (*before, now)


class PromotionLog:
    """The promotion log of one registered model.

    Raises:
        InputError: (every method) the registry cannot be reached, or an entry of it is damaged.
    """

    def __init__(self, client: RetryingClient, model: str) -> None:
        self.model, self.name = model, model + SUFFIX
        self._client = client

    def read(self) -> tuple[LogState, list[LogEntry]]:
        """The present state and every entry, oldest first."""
        return replay(self._entries())

    def compare_and_set(self, entry: LogEntry) -> LogEntry:
        """Write an entry; the entry that comes back says whether it took effect.

        It takes effect if entry `expects` is still the newest in effect; it stays in the log either way.
        """
        made = replace(
            entry,
            token=secrets.token_hex(16),
            by=os.environ.get("MLFLOW_TRACKING_USERNAME") or _user(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            why=shortened(entry.why, TAG_CAP),
        )
        about = f"Promotion log of {self.model}. Do not edit or delete."
        self._client.create_registered_model(self.name, about)
        call(lambda: self._write(made), self.name)
        # A client that heard no answer may have sent it twice: the first of the two is the one that counts.
        ours = [written for written in self.read()[1] if written.token == made.token]
        if not ours:
            raise InputError(f"{self.name}: the entry just written is not there; was it deleted?")
        return next((written for written in ours if written.effective), ours[0])

    def _write(self, entry: LogEntry) -> None:
        # Tried again after "busy", and that may have been said of an entry that was written.
        if self._has(entry):
            return
        tags = {PREFIX + name: str(getattr(entry, name)) for name in _STORED}
        source = f"models:/{self.model}/{entry.version}"
        try:
            self._client.raw.create_model_version(self.name, source, tags=tags, await_creation_for=0)
        except Exception as error:
            if not (is_busy(error) and self._has(entry)):
                raise

    def _has(self, entry: LogEntry) -> bool:
        return any(written.token == entry.token for written in self._entries())

    def _entries(self) -> list[LogEntry]:
        return [self._parsed(row) for row in self._client.search_all_versions(self.name)]

    def _parsed(self, row: Any) -> LogEntry:
        tags = {name.removeprefix(PREFIX): value for name, value in row.tags.items()}
        try:
            if tags["action"] not in get_args(Action):
                raise ValueError(tags["action"])
            fields: dict[str, Any] = {name: tags.get(name, "") for name in _STORED}
            return LogEntry(**fields | {"expects": int(tags["expects"]), "number": int(row.version)})
        except (KeyError, ValueError) as error:
            raise InputError(f"{self.name}: entry {row.version} is damaged: {error!r}") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        return str(os.getuid())
