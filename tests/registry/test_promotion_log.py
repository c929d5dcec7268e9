"""The ordered record: which entries take effect, whatever the order they were thought of in."""

from __future__ import annotations

import random

import pytest

from components.registry.promotion_log import Champion, LogEntry, LogState, replay
from components.runtime.errors import InputError


def promoted(number: int, version: str, expects: int, previous: str = "") -> LogEntry:
    return LogEntry("promoted", version, version, previous, expects, "why", number=number)


def state(head: int, *champions: str) -> LogState:
    return LogState(head, tuple(Champion(version) for version in champions))


def test_of_two_that_follow_on_the_same_entry_the_first_takes_effect() -> None:
    now, entries = replay([promoted(1, "1", 0), promoted(2, "2", 1, "1"), promoted(3, "3", 1, "1")])
    assert now == state(2, "1", "2")
    assert [entry.effective for entry in entries] == [True, True, False]


def test_a_refusal_changes_nothing_and_is_not_followed_on() -> None:
    refused = LogEntry("refused", "2", "1", "", 1, "worse", number=2)
    assert replay([promoted(1, "1", 0), refused])[0] == state(1, "1")
    assert replay([promoted(1, "1", 0), refused, promoted(3, "3", 1, "1")])[0] == state(3, "1", "3")
    assert replay([promoted(1, "1", 0), refused, promoted(3, "3", 2, "1")])[0] == state(1, "1")


def test_an_entry_sent_twice_takes_effect_once() -> None:
    now, entries = replay([promoted(1, "1", 0), promoted(2, "1", 0)])
    assert now == state(1, "1")
    assert [entry.effective for entry in entries] == [True, False]


def test_any_history_of_writers_has_one_chain() -> None:
    draws = random.Random(3)
    for _ in range(200):
        entries = [promoted(n, str(n), draws.randrange(n)) for n in range(1, 12)]
        draws.shuffle(entries)
        now, marked = replay(entries)
        chain = [entry for entry in marked if entry.effective]
        assert [entry.expects for entry in chain] == [0, *(entry.number for entry in chain[:-1])]
        assert now.champion == chain[-1].champion


def test_a_registry_of_plain_files_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from components.registry.versions.store import RegisteredModel

    for uri in (f"file:{tmp_path}", str(tmp_path)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(InputError, match="cannot order two promotions"):
            RegisteredModel("m")
