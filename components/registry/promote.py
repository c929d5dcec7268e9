"""Promotion and rollback: a decision, an entry in the promotion log, the aliases that follow from the log.

Two promotions at once are serialised by `promotion_log.PromotionLog.compare_and_set`. People delete versions
in MLflow's own pages: every command works on what is left and says what was deleted.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.registry.decisions import read_decision, write_decision
from components.registry.gate.gate import Decision, EvaluatedVersion, decide, same_weights
from components.registry.promotion_log import ATTEMPTS, CHAMPION, PREVIOUS, Champion, LogEntry, LogState
from components.registry.versions.files import SEAL, Unreadable, evaluated
from components.registry.versions.store import RegisteredModel
from components.runtime.errors import InputError
from components.runtime.gate.thresholds import Gate

#: Tag of a generator's version with the reward's version that it was evaluated by.
REWARD_VERSION = "reward_version"


@dataclass(frozen=True)
class CurrentState:
    """What holds now: the log's state, that state without deleted versions, and the deletions in words."""

    logged: LogState
    left: LogState
    deleted: tuple[str, ...] = ()


class Promotions:
    """Moves the champion of a generator, and with it that of the reward it was judged by.

    Attributes:
        notes: what the caller should print: what was deleted, and what was done about it.

    Raises:
        InputError: (every method) the registry cannot be reached.
    """

    def __init__(self, generator: RegisteredModel, reward: RegisteredModel) -> None:
        self.generator, self.reward = generator, reward
        self.notes: list[str] = []

    def promote(self, version: str, gate: Gate, note: str = "") -> Decision:
        """Put a version to the gate against whoever is champion; make it the champion if it passes.

        The decision is kept with the version's run, and its digest in the log. If another promotion comes
        between, the version is put to the gate again, against the new champion.

        Raises:
            InputError: a file of the version or of the champion is missing or altered.
        """
        candidate = evaluated(self.generator, version, whole=True)
        seal = self.generator.tags(version).get(SEAL, "")
        for _ in range(ATTEMPTS):
            state = self._log_deletions()
            if state.champion == version:
                self.sync_aliases()
                return _unchanged(version)
            decision = decide(gate, candidate, self._champion(state, candidate))
            passed, reasons = decision.outcome == "accepted", "; ".join(decision.reasons)
            why = "passed every rule of the gate" if passed else reasons
            entry = self.generator.log.compare_and_set(
                LogEntry(
                    action="promoted" if passed else "refused",
                    version=version,
                    champion=version if passed else state.champion or "",
                    previous=(state.champion if passed else state.previous) or "",
                    expects=state.head,
                    why=f"{note}: {why}" if note else why,
                    decision=write_decision(self.generator, version, decision, gate, note),
                    replaced=(state.champion or "") if passed else "",
                    seal=seal,
                )
            )
            if passed and not entry.effective:
                continue
            tags = {"decision": decision.outcome, "reasons": reasons, "record": str(entry.number)}
            self.generator.tag(version, tags)
            self.sync_aliases()
            return decision
        raise self._outpaced()

    def decided(self, version: str, gate: Gate) -> Decision | None:
        """The logged decision on a version by these rules; None where it is to be decided (again).

        A version that was accepted stays so: one that was rolled back does not come back by itself. A refusal
        holds while the champion that it was judged against is the champion.
        """
        champion = self.current().left.champion
        seal = self.generator.tags(version).get(SEAL, "")
        for entry in reversed(self.generator.log.read()[1]):
            if entry.version != version or not entry.decision or entry.seal not in ("", seal):
                continue
            holds = entry.champion == (champion or "") if entry.action == "refused" else entry.effective
            decision = read_decision(self.generator, version, entry) if holds else None
            if decision is not None and decision.gate == gate.digest:
                return decision
        return _unchanged(version) if champion == version else None

    def roll_back(self, reason: str) -> tuple[str, str]:
        """Make the champion before this one the champion again; returns both versions: from, to.

        Raises:
            InputError: there is none to go back to, or another promotion came between.
        """
        self._adopt_champion()
        now = self.current()
        nothing = f"{self.generator.name} has no previous champion to go back to"
        if not now.logged.champions:
            raise InputError(nothing)
        top = now.logged.champions[-1]
        rest = list(now.left.champions)
        if rest and rest[-1] == top:
            rest.pop()
        if not rest:
            deleted = "".join(f"; {words}" for words in now.deleted)
            raise InputError(f"{nothing}{deleted}; to go on, promote a version (see `show`)")
        self.notes += now.deleted
        entry = self._go_back(now.logged, rest, reason)
        self.sync_aliases()
        if not entry.effective:
            # Somebody else moved the champion at the same moment: theirs is not for us to undo unseen.
            raise InputError(
                f"champion of {self.generator.name} is now version {self.current().left.champion}: "
                "another promotion came between; look, and run the command again"
            )
        return top.version, entry.champion

    def sync_aliases(self) -> None:
        """Move the aliases to what the log says, until neither changes any more."""
        for _ in range(ATTEMPTS):
            now = self.current()
            moved = _move(self.generator, PREVIOUS, now.left.previous)
            moved |= _move(self.generator, CHAMPION, now.left.champion)
            if now.left.champion is not None:
                moved |= self._move_reward(now.left.champion)
            if not moved and self.generator.log.read()[0] == now.logged:
                return

    def stale_aliases(self) -> list[str]:
        """Aliases that are not what the log says, in words: moved by hand, or by a writer that died."""
        now = self.current()
        if not now.logged.head:
            return []
        aliases = self.generator.aliases()
        return [
            f"alias {alias} is version {aliases.get(alias, 'none')}, the log says {version or 'none'}"
            for alias, version in ((CHAMPION, now.left.champion), (PREVIOUS, now.left.previous))
            if aliases.get(alias) != version
        ]

    def current(self) -> CurrentState:
        """The log's state, and what is left of it."""
        state = self.generator.log.read()[0]
        seals = {row["version"]: row["tags"].get(SEAL, "") for row in self.generator.versions()}
        deleted = dict.fromkeys(
            champion
            for champion in state.champions
            if champion.version not in seals or champion.seal not in ("", seals[champion.version])
        )
        words = []
        for champion in deleted:
            rank = "the champion by the log" if champion == state.champions[-1] else "an earlier champion"
            name = f"version {champion.version} of {self.generator.name}"
            words.append(f"{name}, {rank}, was deleted in MLflow")
        return CurrentState(state, state.without(deleted), tuple(words))

    def _log_deletions(self) -> LogState:
        """What is left, once the log says who is champion where the champion was deleted."""
        self._adopt_champion()
        for _ in range(ATTEMPTS):
            now = self.current()
            self._note(*now.deleted)
            if not now.left.champions or now.logged.champions[-1] == now.left.champions[-1]:
                return now.left
            why = f"version {now.logged.champion} was deleted in MLflow"
            self.notes.append(f"version {now.left.champion}, champion before it, is the champion again")
            self._go_back(now.logged, list(now.left.champions), why)
        raise self._outpaced()

    def _adopt_champion(self) -> None:
        """Take on a champion from before there was a log as the log's first entry."""
        aliases = {} if self.generator.log.read()[1] else self.generator.aliases()
        if CHAMPION in aliases:
            champion, previous = aliases[CHAMPION], aliases.get(PREVIOUS, "")
            why = "champion before there was a log"
            self.generator.log.compare_and_set(LogEntry("adopted", champion, champion, previous, 0, why))

    def _go_back(self, logged: LogState, rest: list[Champion], why: str) -> LogEntry:
        """Write the entry that takes the champion off the stack; `rest` is what is left below it."""
        entry = LogEntry(
            action="rolled back",
            version=rest[-1].version,
            champion=rest[-1].version,
            previous=rest[-2].version if len(rest) > 1 else "",
            expects=logged.head,
            why=why,
            replaced=logged.champion or "",
            seal=rest[-1].seal,
        )
        return self.generator.log.compare_and_set(entry)

    def _champion(self, state: LogState, candidate: EvaluatedVersion) -> EvaluatedVersion | None:
        if state.champion is None:
            return None
        try:
            return evaluated(self.generator, state.champion)
        except Unreadable as error:
            known = EvaluatedVersion(state.champion, {}, self.generator.tags(state.champion))
            if same_weights(candidate, known):
                return known  # what it scored is not needed: weights are not compared with themselves
            raise InputError(
                f"the champion cannot be compared with: {error}; roll back, or delete version "
                f"{state.champion} in MLflow to go on without it"
            ) from error

    def _move_reward(self, champion: str) -> bool:
        """Whether the reward's alias had to be moved to the version that the champion was judged by."""
        judged_by = self.generator.tags(champion).get(REWARD_VERSION)
        if judged_by is None:
            return False
        if judged_by in self.reward.numbers():
            return _move(self.reward, CHAMPION, judged_by)
        self._note(
            f"version {judged_by} of {self.reward.name}, which judged the champion, was deleted in MLflow"
        )
        return False

    def _note(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def _outpaced(self) -> InputError:
        return InputError(f"{self.generator.name}: {ATTEMPTS} other promotions came between; try again")


def _move(model: RegisteredModel, alias: str, version: str | None) -> bool:
    """Point the alias at the version; whether it had to be moved."""
    if model.aliases().get(alias) == version:
        return False
    model.set_alias(alias, version)
    return True


def _unchanged(champion: str) -> Decision:
    return Decision("unchanged", ("this version is the champion already",), (), champion)
