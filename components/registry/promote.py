"""Promoting and rolling back: a decision, an entry in the record, and the aliases that follow from it.

People delete versions in MLflow's own pages. Every command works on what is left and says what is gone.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.registry.gate.gate import Decision, EvaluatedVersion, decide, same_weights
from components.registry.promotion_log import ATTEMPTS, Champion, Entry, State
from components.registry.versions.store import CHAMPION, PREVIOUS, SEAL, Models, Unreadable
from components.runtime.errors import InputError
from components.runtime.gate.rules import Check
from components.runtime.gate.thresholds import Gate

REWARD_VERSION = "reward_version"
DECISIONS = "decisions"


@dataclass(frozen=True)
class Present:
    """What holds now: the record's state, the state with what is left of it, and what is gone, in words."""

    recorded: State
    left: State
    gone: tuple[str, ...] = ()


class Promotions:
    """Moves the champion of a generator, and with it that of the reward it was judged by.

    Raises:
        InputError: (every method) the registry cannot be reached.
    """

    def __init__(self, generator: Models, reward: Models) -> None:
        self.generator, self.reward = generator, reward
        self.notes: list[str] = []
        """What the caller should tell: what was gone, and what was done about it."""

    def promote(self, version: str, gate: Gate, note: str = "") -> Decision:
        """Put a version to the gate against whoever is champion; make it the champion if it passes.

        The decision is kept with the version's run, and its digest in the record. If another promotion comes
        between, the version is put to the gate again, against the new champion.

        Raises:
            InputError: a file of the version or of the champion is missing or altered.
        """
        candidate = self.generator.evaluated(version, whole=True)
        seal = self.generator.tags(version).get(SEAL, "")
        for _ in range(ATTEMPTS):
            state = self._mended()
            if state.champion == version:
                self.follow()
                return _unchanged(version)
            decision = decide(gate, candidate, self._champion(state, candidate))
            digest = self._kept(version, decision, gate, note)
            passed = decision.outcome == "accepted"
            why = "passed every rule of the gate" if passed else "; ".join(decision.reasons)
            entry = self.generator.record.append(
                Entry(
                    action="promoted" if passed else "refused",
                    version=version,
                    champion=version if passed else state.champion or "",
                    previous=(state.champion if passed else state.previous) or "",
                    expects=state.head,
                    why=f"{note}: {why}" if note else why,
                    decision=digest,
                    replaced=(state.champion or "") if passed else "",
                    seal=seal,
                )
            )
            if passed and not entry.effective:
                continue
            reasons = "; ".join(decision.reasons)
            self.generator.tag(
                version, {"decision": decision.outcome, "reasons": reasons, "record": str(entry.number)}
            )
            self.follow()
            return decision
        raise InputError(f"{self.generator.name}: {ATTEMPTS} other promotions came between; try again")

    def decided(self, version: str, gate: Gate) -> Decision | None:
        """The decision on record for a version by these rules; None where it is to be decided (again).

        A version that was accepted stays so: one that was rolled back does not come back by itself. A refusal
        holds while the champion that it was judged against is the champion.
        """
        now = self.present()
        seal = self.generator.tags(version).get(SEAL, "")
        for entry in reversed(self.generator.record.read()[1]):
            if entry.version != version or not entry.decision or entry.seal not in ("", seal):
                continue
            if entry.action == "refused" and (entry.champion or None) != now.left.champion:
                continue
            if entry.action != "refused" and not entry.effective:
                continue
            found = self._read_decision(version, entry)
            if found is not None and found.gate == gate.digest:
                return found
        return _unchanged(version) if now.left.champion == version else None

    def roll_back(self, reason: str) -> tuple[str, str]:
        """Make the champion before this one the champion again; returns both versions: from, to.

        Raises:
            InputError: there is none to go back to, or another promotion came between.
        """
        self._adopted()
        now = self.present()
        if not now.recorded.champions:
            raise InputError(f"{self.generator.name} has no previous champion to go back to")
        top = now.recorded.champions[-1]
        stays = bool(now.left.champions) and now.left.champions[-1] == top
        rest = list(now.left.champions[:-1] if stays else now.left.champions)
        if not rest:
            raise InputError(
                f"{self.generator.name} has no previous champion to go back to"
                f"{''.join(f'; {words}' for words in now.gone)}; to go on, promote a version (see `show`)"
            )
        self.notes += now.gone
        entry = self.generator.record.append(self._back(now.recorded.head, top, rest, reason))
        self.follow()
        if not entry.effective:
            # Somebody else moved the champion at the same moment: theirs is not for us to undo unseen.
            raise InputError(
                f"champion of {self.generator.name} is now version {self.present().left.champion}: "
                "another promotion came between; look, and run the command again"
            )
        return top.version, entry.champion

    def follow(self) -> None:
        """Move the aliases to what the record says, until neither changes any more."""
        for _ in range(ATTEMPTS):
            now = self.present()
            moved = self._pointed(self.generator, PREVIOUS, now.left.previous)
            moved |= self._pointed(self.generator, CHAMPION, now.left.champion)
            if now.left.champion is not None:
                moved |= self._reward_follows(now.left.champion)
            if not moved and self.generator.record.read()[0] == now.recorded:
                return

    def astray(self) -> list[str]:
        """Aliases that are not what the record says, in words: moved by hand, or by a writer that died."""
        now = self.present()
        if not now.recorded.head:
            return []
        aliases = self.generator.aliases()
        return [
            f"alias {alias} is version {aliases.get(alias, 'none')}, the record says {said or 'none'}"
            for alias, said in ((CHAMPION, now.left.champion), (PREVIOUS, now.left.previous))
            if aliases.get(alias) != said
        ]

    def present(self) -> Present:
        """The record's state, and what is left of it."""
        state = self.generator.record.read()[0]
        there = {row["version"]: row["tags"].get(SEAL, "") for row in self.generator.versions()}
        gone = [
            one
            for one in state.champions
            if one.version not in there or (one.seal and there[one.version] != one.seal)
        ]
        left = state.without(gone)
        return Present(state, left, tuple(self._told_gone(one, state) for one in dict.fromkeys(gone)))

    def _told_gone(self, one: Champion, state: State) -> str:
        place = "the champion by the record" if one == state.champions[-1] else "an earlier champion"
        return f"version {one.version} of {self.generator.name}, {place}, was deleted in MLflow"

    def _mended(self) -> State:
        """What is left, once the record says who is champion where the champion was deleted."""
        self._adopted()
        for _ in range(ATTEMPTS):
            now = self.present()
            for words in now.gone:
                if words not in self.notes:
                    self.notes.append(words)
            if now.left.champions and now.recorded.champions[-1] != now.left.champions[-1]:
                top = now.recorded.champions[-1]
                why = f"version {top.version} was deleted in MLflow"
                self.notes.append(f"version {now.left.champion}, champion before it, is the champion again")
                self.generator.record.append(
                    self._back(now.recorded.head, top, list(now.left.champions), why)
                )
                continue
            return now.left
        raise InputError(f"{self.generator.name}: {ATTEMPTS} other promotions came between; try again")

    def _adopted(self) -> None:
        """Take on a champion from before there was a record as the record's first entry."""
        record = self.generator.record
        aliases = {} if record.read()[1] else self.generator.aliases()
        if CHAMPION in aliases:
            found = aliases[CHAMPION]
            why = "champion before there was a record"
            record.append(Entry("adopted", found, found, aliases.get(PREVIOUS, ""), 0, why))

    @staticmethod
    def _back(head: int, top: Champion, rest: list[Champion], why: str) -> Entry:
        """The entry that takes `top` off the stack; `rest` is what is left below it."""
        return Entry(
            action="rolled back",
            version=rest[-1].version,
            champion=rest[-1].version,
            previous=rest[-2].version if len(rest) > 1 else "",
            expects=head,
            why=why,
            replaced=top.version,
            seal=rest[-1].seal,
        )

    def _champion(self, state: State, candidate: EvaluatedVersion) -> EvaluatedVersion | None:
        if state.champion is None:
            return None
        try:
            return self.generator.evaluated(state.champion)
        except Unreadable as error:
            known = EvaluatedVersion(state.champion, {}, self.generator.tags(state.champion))
            if same_weights(candidate, known):
                return known  # what it scored is not needed: weights are not compared with themselves
            raise InputError(
                f"the champion cannot be compared with: {error}; roll back, or delete version "
                f"{state.champion} in MLflow to go on without it"
            ) from error

    def _reward_follows(self, champion: str) -> bool:
        """Whether the reward's alias had to be moved to the one that the champion was judged by."""
        judged_by = self.generator.tags(champion).get(REWARD_VERSION)
        if judged_by is None:
            return False
        if judged_by not in {row["version"] for row in self.reward.versions()}:
            words = (
                f"version {judged_by} of {self.reward.name}, which judged the champion, was deleted in MLflow"
            )
            if words not in self.notes:
                self.notes.append(words)
            return False
        return self._pointed(self.reward, CHAMPION, judged_by)

    def _kept(self, version: str, decision: Decision, gate: Gate, note: str) -> str:
        """Write the decision record beside the version's files; returns its SHA-256."""
        text = (
            json.dumps(decision_record(self.generator.name, version, decision, gate, note), indent=1) + "\n"
        )
        digest = hashlib.sha256(text.encode()).hexdigest()
        with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
            file = Path(scratch) / f"{digest[:16]}.json"
            file.write_text(text, encoding="utf-8")
            self.generator.log_file(self.generator.writable_run(version), file, DECISIONS)
        return digest

    def _read_decision(self, version: str, entry: Entry) -> Decision | None:
        """The decision of an entry; None where its file is not to be had or is of another version's form."""
        with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
            try:
                file = self.decision_file(version, entry, Path(scratch))
                text = file.read_bytes()
                found = json.loads(text)
                if hashlib.sha256(text).hexdigest() != entry.decision:
                    return None
                return Decision(
                    found["outcome"],
                    tuple(found["reasons"]),
                    tuple(Check(**one) for one in found["checks"]),
                    found["champion"],
                    found["gate"]["digest"],
                )
            except (InputError, OSError, ValueError, KeyError, TypeError):
                return None

    def decision_file(self, version: str, entry: Entry, to: Path) -> Path:
        """Download the decision record of an entry into `to`.

        Raises:
            InputError: it is not there.
        """
        name = f"{DECISIONS}/{entry.decision[:16]}.json"
        runs = self.generator.runs_of(version)
        for run_id in runs[:-1]:
            with suppress(InputError):
                return self.generator.fetch_from_run(run_id, name, to)
        if not runs:
            raise InputError(f"version {version} of {self.generator.name} has no run that could hold {name}")
        return self.generator.fetch_from_run(runs[-1], name, to)

    @staticmethod
    def _pointed(models: Models, alias: str, version: str | None) -> bool:
        """Whether the alias had to be moved."""
        if models.aliases().get(alias) == version:
            return False
        models.set_alias(alias, version)
        return True


def _unchanged(champion: str) -> Decision:
    return Decision("unchanged", ("this version is the champion already",), (), champion)


def decision_record(
    model: str, version: str, decision: Decision, gate: Gate, note: str = ""
) -> dict[str, Any]:
    """A decision with the gate it was made by, as plain JSON values."""
    found: dict[str, Any] = {"model": model, "version": version} | decision.as_json()
    return found | {"gate": {"digest": gate.digest, "rules": gate.model_dump(mode="json")}, "note": note}
