"""Promoting and rolling back: a decision, an entry in the record, and the aliases that follow from it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from components.registry.gate import Decision, Standing, decide
from components.registry.models import CHAMPION, PREVIOUS, Models
from components.registry.record import ATTEMPTS, Entry, State
from components.runtime.errors import InputError
from components.runtime.gate import Gate

REWARD_VERSION = "reward_version"
DECISIONS = "decisions"


class Promotions:
    """Moves the champion of a generator, and with it that of the reward it was judged by.

    Raises:
        InputError: (every method) the registry cannot be reached.
    """

    def __init__(self, generator: Models, reward: Models) -> None:
        self.generator, self.reward = generator, reward

    def promote(self, version: str, gate: Gate, note: str = "") -> Decision:
        """Put a version to the gate against whoever is champion; make it the champion if it passes.

        The decision is kept with the version's run, and its digest in the record. If another promotion comes
        between, the version is put to the gate again, against the new champion.

        Raises:
            InputError: a file of the version is missing or altered.
        """
        candidate = self.generator.standing(version, whole=True)
        for _ in range(ATTEMPTS):
            state = self._state()
            if state.champion == version:
                self.follow()
                return Decision("unchanged", ("this version is the champion already",), (), version)
            decision = decide(gate, candidate, self._champion(state))
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

    def roll_back(self, reason: str) -> str:
        """Make the previous champion the champion again; returns its version.

        Raises:
            InputError: there is none to go back to, or another promotion came between.
        """
        state = self._state()
        if state.previous is None:
            raise InputError(f"{self.generator.name} has no previous champion to go back to")
        entry = self.generator.record.append(
            Entry(
                action="rolled back",
                version=state.previous,
                champion=state.previous,
                previous=state.champion or "",
                expects=state.head,
                why=reason,
            )
        )
        self.follow()
        if not entry.effective:
            # Somebody else moved the champion at the same moment: theirs is not for us to undo unseen.
            raise InputError(
                f"champion of {self.generator.name} is now version {self._state().champion}: "
                "another promotion came between; look, and run the command again"
            )
        return entry.champion

    def follow(self) -> None:
        """Move the aliases to what the record says, until neither changes any more."""
        for _ in range(ATTEMPTS):
            state = self.generator.record.read()[0]
            moved = self._pointed(self.generator, PREVIOUS, state.previous)
            moved |= self._pointed(self.generator, CHAMPION, state.champion)
            if state.champion is not None:
                judged_by = self.generator.tags(state.champion).get(REWARD_VERSION)
                if judged_by is not None:
                    moved |= self._pointed(self.reward, CHAMPION, judged_by)
            if not moved and self.generator.record.read()[0] == state:
                return

    def astray(self) -> list[str]:
        """Aliases that are not what the record says, in words: moved by hand, or by a writer that died."""
        state = self.generator.record.read()[0]
        if not state.head:
            return []
        aliases = self.generator.aliases()
        return [
            f"alias {alias} is version {aliases.get(alias, 'none')}, the record says {said or 'none'}"
            for alias, said in ((CHAMPION, state.champion), (PREVIOUS, state.previous))
            if aliases.get(alias) != said
        ]

    def _state(self) -> State:
        """The record's state; a champion from before there was a record is taken on as its first entry."""
        record = self.generator.record
        state, entries = record.read()
        aliases = {} if entries else self.generator.aliases()
        if CHAMPION not in aliases:
            return state
        found = aliases[CHAMPION]
        record.append(
            Entry("adopted", found, found, aliases.get(PREVIOUS, ""), 0, "champion before there was a record")
        )
        return record.read()[0]

    def _champion(self, state: State) -> Standing | None:
        return None if state.champion is None else self.generator.standing(state.champion)

    def _kept(self, version: str, decision: Decision, gate: Gate, note: str) -> str:
        """Write the decision record beside the version's files; returns its SHA-256."""
        text = (
            json.dumps(decision_record(self.generator.name, version, decision, gate, note), indent=1) + "\n"
        )
        digest = hashlib.sha256(text.encode()).hexdigest()
        run_id = self.generator.run_of(version)
        if run_id is not None:
            with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
                file = Path(scratch) / f"{digest[:16]}.json"
                file.write_text(text, encoding="utf-8")
                self.generator.log_file(run_id, file, DECISIONS)
        return digest

    @staticmethod
    def _pointed(models: Models, alias: str, version: str | None) -> bool:
        """Whether the alias had to be moved."""
        if models.aliases().get(alias) == version:
            return False
        models.set_alias(alias, version)
        return True


def decision_record(
    model: str, version: str, decision: Decision, gate: Gate, note: str = ""
) -> dict[str, Any]:
    """A decision with the gate it was made by, as plain JSON values."""
    found: dict[str, Any] = {"model": model, "version": version} | decision.as_json()
    return found | {"gate": {"digest": gate.digest, "rules": gate.model_dump(mode="json")}, "note": note}
