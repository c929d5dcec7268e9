"""The reward card, also as card.json: `measure` fills it; `markdown`, `plots` and the report page show it.

Importing it imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, computed_field
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from components.runtime.errors import InputError
from components.runtime.stats import Clusters, wilson


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


#: A measured number; None where it could not be measured (a number that is not finite becomes None).
Figure = Annotated[float | None, BeforeValidator(_finite)]

#: Names of the last release in card.json, and today's.
RENAMED = {"level": "score_per_level", "reversed_change": "time_reversal_change", "certainty": "uncertainty"}


@dataclass(frozen=True)
class Column:
    """Agreement on one set of held-out ladders; None where the set has no labels or is too small.

    Attributes:
        clips: that were compared with a label, or scored where there are none.
        ladders: of six clips each.
        srcc, krcc: rank correlation of score and label, -1..1.
        plcc, rmse: after the fitted logistic.
        srcc_fidelity: rank correlation with the full-reference measures alone, without the designed severity.
        reference_above: share of distorted clips that score below their original, 0..1.
        adjacent_ordered, two_apart_ordered: share of pairs of a ladder's clips, one level or exactly two
            apart, in the right order.
        pairs_ordered: the same of all pairs of a ladder; equal scores count as wrong.
        pairs_ordered_untied: the same, pairs of equal scores left out.
        fully_ordered: share of ladders without any neighbours in the wrong order.
    """

    clips: int = 0
    ladders: int = 0
    srcc: Figure = None
    krcc: Figure = None
    plcc: Figure = None
    rmse: Figure = None
    srcc_fidelity: Figure = None
    reference_above: Figure = None
    adjacent_ordered: Figure = None
    two_apart_ordered: Figure = None
    pairs_ordered: Figure = None
    pairs_ordered_untied: Figure = None
    fully_ordered: Figure = None


@dataclass(frozen=True)
class Wins:
    """How often one clip of a pair scored above the other.

    Attributes:
        won: number of pairs it did; equal scores are no win.
        clips: number of pairs.
        same: pairs left out, as the two clips cannot be told apart.
        low, high: 95 % interval of the share; None where there is none.
        contents: number of contents that the interval is clustered by; 0 where every pair is independent.
    """

    won: int
    clips: int
    same: int = 0
    low: Figure = field(default=None, compare=False)
    high: Figure = field(default=None, compare=False)
    contents: int = field(default=0, compare=False)

    @classmethod
    def counted(cls, won: int, clips: int, same: int = 0) -> Wins:
        """Of independent pairs, with Wilson's interval."""
        ends = wilson(won, clips).ends if clips else (None, None)
        return cls(won, clips, same, *ends)

    @classmethod
    def of(cls, above: np.ndarray, seen: np.ndarray, contents: Sequence[str] = ()) -> Wins:
        """Of two (N,) masks: pairs that were won, and pairs that can be told apart.

        Args:
            contents: (N,) what each pair shows, by which the interval is clustered; empty: independent pairs.
        """
        won, clips, same = int((above & seen).sum()), int(seen.sum()), int((~seen).sum())
        names = [name for name, counts in zip(contents, seen, strict=False) if counts]
        number = len(set(names))
        if number in (0, clips):
            return cls.counted(won, clips, same)
        low, high = Clusters(names).rate(above[seen].astype(float)).ends
        return cls(won, clips, same, low, high, number)

    @classmethod
    def pooled(cls, parts: Iterable[Wins]) -> Wins:
        """All pairs together."""
        kept = list(parts)
        return cls.counted(sum(p.won for p in kept), sum(p.clips for p in kept), sum(p.same for p in kept))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> float | None:
        """Of the pairs, 0..1; None without any."""
        return self.won / self.clips if self.clips else None


@dataclass(frozen=True)
class Slowed:
    """Honest clips against the same content moving less.

    Attributes:
        wins: of the clip that moves more.
        gain: mean score that less motion gains, in levels of a ladder (what one more level costs on average).
    """

    wins: Wins
    gain: Figure


@dataclass(frozen=True)
class Backward:
    """A kind of damage that is ranked the wrong way round on one source: more damage scores higher.

    Attributes:
        name: of a distortion, or of a family.
        source: of the clips.
        srcc: rank correlation with the label; None where the source has none.
        pairs: share of the pairs of a ladder in the right order, 0..1.
    """

    name: str
    source: str
    srcc: Figure
    pairs: float


@dataclass
class Stillness:
    """Whether the score rewards stillness.

    Attributes:
        motion: for each source, rank correlation of score and amount of motion over honest clips.
        slowed: probes by name.
    """

    motion: dict[str, Figure] = field(default_factory=dict)
    slowed: dict[str, Slowed] = field(default_factory=dict)

    @property
    def worst(self) -> str | None:
        """The probe in which moving less gains most; None where none could be made."""
        gains = {name: probe.gain for name, probe in self.slowed.items() if probe.gain is not None}
        return max(gains, key=gains.__getitem__, default=None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> float | None:
        """The most that moving less gains in any probe, in levels; above 0 stillness is rewarded."""
        return None if self.worst is None else self.slowed[self.worst].gain


@dataclass
class Uncertainty:
    """Whether the ensemble's standard deviation predicts the errors, and what each aspect follows.

    Attributes:
        error_srcc: rank correlation of the standard deviation and the error of the score after its fitted
            logistic, over labelled clips.
        pairs: by set of pairs, the right decisions among pairs whose scores lie further apart than their mean
            standard deviation ("beyond"), and among the others ("within").
        falls: for every family of damage, how far each aspect falls from the original to the worst level, as
            a share of the fall on its own family.
    """

    error_srcc: Figure = None
    pairs: dict[str, dict[str, Wins]] = field(default_factory=dict)
    falls: dict[str, dict[str, Figure]] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """Mean rank correlation with an independent judge inside a prompt, and its 95 % interval."""

    value: Figure = None
    low: Figure = None
    high: Figure = None
    clusters: int = 0


@dataclass(frozen=True)
class GateCheck:
    """One requirement of the reward's gate.

    Attributes:
        name: of the figure in metrics.json.
        value: what was measured; None where nothing could be.
        least: the bound; of some figures (`stillness_gain`) the largest value allowed.
        passed: None where nothing could be measured.
        line: measurement and bound for a person.
    """

    name: str
    value: Figure = None
    least: Figure = None
    passed: bool | None = None
    line: str = ""


@dataclass(frozen=True)
class GateResult:
    """The decision of the reward's gate.

    Attributes:
        reasons: to refuse.
        checks: every requirement.
        room: distance of the tightest figure from its bound, in its own unit; negative outside.
    """

    passed: bool = True
    reasons: list[str] = field(default_factory=list)
    checks: list[GateCheck] = field(default_factory=list)
    room: Figure = None


@dataclass(config=ConfigDict(validate_assignment=True))
class Card:
    """All measurements of a reward; `unavailable` says why a number is missing.

    Attributes:
        columns: agreement by set of ladders: the sources, "all" (world and footage, types seen in training),
            "heldout_types" (world and footage, other types), "heldout_types_generated".
        baselines: the same columns for every baseline.
        by_type: for every distortion the figures of `agreement.by_group`, for each source by itself.
        by_family: the same for every family of distortions.
        attacks: wins of the honest original, by source and attack.
        judge: rank correlation with an independent judge inside the prompts of the card.
        judge_pairs: share of pairs in the judge's order, 0..1.
        score_per_level: mean fall of the score from one level of a ladder to the next; the unit of
            `Slowed.gain`.
        time_reversal_change: mean change of the score of clips played backwards, in standard deviations of
            the scores.
        data: what the numbers rest on.
        gate: the gate's decision on them.
    """

    columns: dict[str, Column] = field(default_factory=dict)
    baselines: dict[str, dict[str, Column]] = field(default_factory=dict)
    by_type: dict[str, dict[str, Figure]] = field(default_factory=dict)
    by_family: dict[str, dict[str, Figure]] = field(default_factory=dict)
    attacks: dict[str, dict[str, Wins]] = field(default_factory=dict)
    stillness: Stillness | None = None
    uncertainty: Uncertainty | None = None
    judge: Agreement | None = None
    judge_pairs: Figure = None
    score_per_level: Figure = None
    time_reversal_change: Figure = None
    data: dict[str, Any] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    gate: GateResult | None = None

    @classmethod
    def read(cls, file: Path) -> Card:
        """Read a card.json, one of the last release too.

        Raises:
            InputError: not a reward card; the message names the file.
        """
        try:
            plain = json.loads(file.read_text(encoding="utf-8"))
            for old, new in RENAMED.items():
                if old in plain:
                    plain[new] = plain.pop(old)
            plain.get("attacks", {}).pop("pooled", None)
            return TypeAdapter(cls).validate_python(plain)
        except OSError as error:
            raise InputError(f"{file}: {error.strerror}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{file}: not a reward card: {str(error).splitlines()[0]}") from error

    def as_json(self) -> dict[str, Any]:
        """Plain values; numbers that could not be measured are null."""
        plain: dict[str, Any] = to_jsonable_python(self)
        plain["attacks"]["pooled"] = to_jsonable_python(self.pooled())
        plain["worst_attacks"] = {
            attack: {"source": source, **to_jsonable_python(wins)}
            for attack, (source, wins) in self.worst().items()
        }
        return {**plain, "backward": to_jsonable_python(self.backward())}

    def pooled(self) -> dict[str, Wins]:
        """The attacks over all sources together."""
        by_attack: dict[str, list[Wins]] = {}
        for tried in self.attacks.values():
            for attack, wins in tried.items():
                by_attack.setdefault(attack, []).append(wins)
        return {attack: Wins.pooled(parts) for attack, parts in by_attack.items()}

    def worst(self) -> dict[str, tuple[str, Wins]]:
        """For every attack the source on which it succeeds most, and the wins there.

        Attacks in which no pair can be told apart are left out.
        """
        worst: dict[str, tuple[str, Wins]] = {}
        for source, tried in self.attacks.items():
            for attack, wins in tried.items():
                share = wins.share
                if share is not None and (attack not in worst or share < (worst[attack][1].share or 0)):
                    worst[attack] = source, wins
        return worst

    def backward(self) -> list[Backward]:
        """What is ranked the wrong way round on some source, the worst first: families, then distortions.

        That is a negative rank correlation with the label, or most pairs of a ladder in the wrong order. Each
        source is looked at by itself: in a pool it would not show.
        """
        ranked: list[Backward] = []
        for table in (self.by_family, self.by_type):
            rows = [
                Backward(name, key.removeprefix("pairs_"), row.get(key.replace("pairs_", "srcc_", 1)), pairs)
                for name, row in table.items()
                for key, pairs in row.items()
                if key.startswith("pairs_") and pairs is not None
            ]
            wrong = [row for row in rows if row.pairs < 0.5 or (row.srcc is not None and row.srcc < 0)]
            ranked += sorted(wrong, key=lambda row: row.pairs)
        return ranked

    def metrics(self) -> dict[str, float]:
        """The flat, finite numbers of metrics.json."""
        flat: dict[str, float | None] = {}
        for name, column in self.columns.items():
            flat |= {f"{key}_{name}": value for key, value in asdict(column).items()}
        for rival, columns in self.baselines.items():
            for key in ("srcc", "adjacent_ordered", "two_apart_ordered"):
                flat |= {f"baseline_{rival}_{key}_{n}": getattr(c, key) for n, c in columns.items()}
        flat |= {f"{attack}_below_original": wins.share for attack, wins in self.pooled().items()}
        for source, tried in self.attacks.items():
            flat |= {f"{attack}_below_original_{source}": wins.share for attack, wins in tried.items()}
        worst = {attack: wins.share for attack, (_, wins) in self.worst().items()}
        flat |= {f"{attack}_below_original_worst": share for attack, share in worst.items()}
        flat["attacks_below_original_worst"] = min((s for s in worst.values() if s is not None), default=None)
        if self.by_type:
            flat["ranked_backwards"] = len({(row.name, row.source) for row in self.backward()})
        if self.stillness is not None:
            flat["stillness_gain"] = self.stillness.verdict
            flat |= {f"motion_srcc_{source}": value for source, value in self.stillness.motion.items()}
            for name, probe in self.stillness.slowed.items():
                flat |= {f"moving_above_{name}": probe.wins.share, f"gain_{name}": probe.gain}
        if self.uncertainty is not None:
            flat["uncertainty_error_srcc"] = self.uncertainty.error_srcc
            for name, sides in self.uncertainty.pairs.items():
                flat |= {f"pairs_{side}_uncertainty_{name}": wins.share for side, wins in sides.items()}
        if self.judge is not None:
            flat |= {"judge_srcc": self.judge.value, "judge_prompts": self.judge.clusters}
            flat |= {"judge_srcc_low": self.judge.low, "judge_srcc_high": self.judge.high}
            flat["judge_pair_accuracy"] = self.judge_pairs
        if self.gate is not None:
            flat |= {"gate_passed": self.gate.passed, "gate_room": self.gate.room}
        flat["time_reversal_change"] = self.time_reversal_change
        return {key: float(value) for key, value in flat.items() if value is not None}
