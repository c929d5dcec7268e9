"""The reward card: what is known of a reward, as values.

`measuring` fills it, `markdown` and `plots` show it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from components.runtime.stats import ClusterMean, Clusters, wilson

NAN = float("nan")


@dataclass(frozen=True)
class Column:
    """Agreement on one set of held-out ladders; nan where the set has no labels or is too small.

    Attributes:
        clips: that were compared with a label, or scored where there are none.
        ladders: of six clips each.
        srcc, krcc: rank correlation of score and label.
        plcc, rmse: after the fitted logistic.
        srcc_fidelity: rank correlation with the full-reference measures alone, without the designed severity.
        reference_above: share of distorted clips that score below their original.
        adjacent_ordered, two_apart_ordered: share of pairs of a ladder's clips, one level or exactly two
            apart, in the right order.
        pairs_ordered: the same of all pairs of a ladder; equal scores count as wrong.
        pairs_ordered_untied: the same, pairs of equal scores left out.
        fully_ordered: share of ladders without any neighbours in the wrong order.
    """

    clips: int
    ladders: int = 0
    srcc: float = NAN
    krcc: float = NAN
    plcc: float = NAN
    rmse: float = NAN
    srcc_fidelity: float = NAN
    reference_above: float = NAN
    adjacent_ordered: float = NAN
    two_apart_ordered: float = NAN
    pairs_ordered: float = NAN
    pairs_ordered_untied: float = NAN
    fully_ordered: float = NAN


@dataclass(frozen=True)
class Wins:
    """How often one clip of a pair scored above the other.

    Attributes:
        won: number of pairs it did; equal scores are no win.
        clips: number of pairs.
        same: pairs left out, as nobody could tell the two clips apart.
        by_content: won and clips of every content; () where each pair is of a content of its own.
    """

    won: int
    clips: int
    same: int = 0
    by_content: tuple[tuple[int, int], ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of(cls, above: np.ndarray, seen: np.ndarray, contents: Sequence[str] = ()) -> Wins:
        """Of two (N,) masks: pairs that were won, and pairs that can be told apart; and what each shows."""
        tally: dict[str, list[int]] = {}
        for content, won, counts in zip(contents, above & seen, seen, strict=False):
            row = tally.setdefault(content, [0, 0])
            row[0] += int(won)
            row[1] += int(counts)
        groups = tuple((won, clips) for won, clips in tally.values() if clips)
        return cls(int((above & seen).sum()), int(seen.sum()), int((~seen).sum()), groups)

    @classmethod
    def pooled(cls, parts: Iterable[Wins]) -> Wins:
        """All pairs together."""
        kept = list(parts)
        return cls(sum(p.won for p in kept), sum(p.clips for p in kept), sum(p.same for p in kept))

    @property
    def share(self) -> float:
        """Of the pairs; nan without any."""
        return self.won / self.clips if self.clips else NAN

    @property
    def interval(self) -> tuple[float, float]:
        """The share's 95 % interval, by content; Wilson's where every pair is of another. Nan without any."""
        if not self.clips:
            return NAN, NAN
        if len(self.by_content) in (0, self.clips):
            found = wilson(self.won, self.clips)
        else:
            labels = [number for number, (_, clips) in enumerate(self.by_content) for _ in range(clips)]
            values = [float(i < won) for won, clips in self.by_content for i in range(clips)]
            found = Clusters(labels).rate(np.array(values))
        return (found.low, found.high) if found.known else (NAN, NAN)

    def as_json(self) -> dict[str, float]:
        """Counts, share and interval."""
        low, high = self.interval
        counts = {"won": self.won, "clips": self.clips, "same": self.same}
        return {**counts, "share": self.share, "low": low, "high": high}


@dataclass(frozen=True)
class Slowed:
    """Honest clips against the same content moving less.

    Attributes:
        wins: of the clip that moves more.
        gain: mean score that less motion gains, in levels of a ladder (what one more level costs on average).
    """

    wins: Wins
    gain: float


@dataclass(frozen=True)
class Backward:
    """A kind of damage that clips of one source are ranked against: the more of it, the better.

    Attributes:
        name: of a distortion, or of a family.
        source: of the clips.
        srcc: rank correlation with the label; nan where the source has none.
        pairs: share of the pairs of a ladder in the right order.
    """

    name: str
    source: str
    srcc: float
    pairs: float


@dataclass
class Stillness:
    """Whether the score rewards stillness.

    Attributes:
        motion: for each source, rank correlation of score and amount of motion over honest clips.
        slowed: probes by name.
    """

    motion: dict[str, float] = field(default_factory=dict)
    slowed: dict[str, Slowed] = field(default_factory=dict)

    @property
    def verdict(self) -> float:
        """The most that moving less gains in any probe, in levels; above 0 stillness is rewarded."""
        return self.slowed[self.worst].gain if self.worst is not None else NAN

    @property
    def worst(self) -> str | None:
        """The probe in which moving less gains most; None where none could be made."""
        known = [name for name, probe in self.slowed.items() if math.isfinite(probe.gain)]
        return max(known, key=lambda name: self.slowed[name].gain) if known else None


@dataclass
class Certainty:
    """Whether the spread tells the errors, and what each aspect follows.

    Attributes:
        error_srcc: rank correlation of the spread and the error of the score after its fitted logistic, over
            labelled clips.
        pairs: by set of pairs, the right verdicts among pairs whose scores lie further apart than their mean
            spread ("beyond"), and among the others ("within").
        falls: for every family of damage, how far each aspect falls from the original to the worst level, as
            a share of the fall on its own family.
    """

    error_srcc: float = NAN
    pairs: dict[str, dict[str, Wins]] = field(default_factory=dict)
    falls: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Card:
    """All measurements of a reward; `unavailable` says why a number is missing.

    Attributes:
        columns: agreement by set of ladders: the sources, "all" (world and footage, types seen in training),
            "heldout_types" (world and footage, other types), "heldout_types_generated".
        baselines: the same columns for every baseline.
        by_type: for every distortion the figures of `measuring.by_group`, for each source by itself.
        by_family: the same for every family of distortions.
        attacks: wins of the honest original, by source and attack.
        level: mean fall of the score from one level of a ladder to the next; the unit of `Slowed.gain`.
        judge: rank correlation with an independent judge inside the prompts of the card.
        reversed_change: mean change of the score of clips played backwards, in standard deviations of the
            scores.
        data: what the numbers rest on.
    """

    columns: dict[str, Column] = field(default_factory=dict)
    baselines: dict[str, dict[str, Column]] = field(default_factory=dict)
    by_type: dict[str, dict[str, float]] = field(default_factory=dict)
    by_family: dict[str, dict[str, float]] = field(default_factory=dict)
    attacks: dict[str, dict[str, Wins]] = field(default_factory=dict)
    stillness: Stillness | None = None
    certainty: Certainty | None = None
    judge: ClusterMean | None = None
    judge_pairs: float = NAN
    level: float = NAN
    reversed_change: float = NAN
    data: dict[str, Any] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    def pooled(self) -> dict[str, Wins]:
        """The attacks over all sources together."""
        names = dict.fromkeys(name for wins in self.attacks.values() for name in wins)
        return {
            name: Wins.pooled(wins[name] for wins in self.attacks.values() if name in wins) for name in names
        }

    def worst(self) -> dict[str, tuple[str, Wins]]:
        """For every attack the source on which it succeeds most, and the wins there; not those that no pair
        was told apart for."""
        found: dict[str, tuple[str, Wins]] = {}
        for source, tried in self.attacks.items():
            for attack, wins in tried.items():
                if wins.clips and (attack not in found or wins.share < found[attack][1].share):
                    found[attack] = source, wins
        return found

    def backward(self) -> list[Backward]:
        """What is ranked the wrong way round on some source, the worst first: families, then distortions.

        That is a negative rank correlation with the label, or most pairs of a ladder in the wrong order. Read
        of each source by itself: together with another it would not show.
        """
        found = []
        for table in (self.by_family, self.by_type):
            some = []
            for name, row in table.items():
                for key, pairs in row.items():
                    if not key.startswith("pairs_"):
                        continue
                    source = key.removeprefix("pairs_")
                    srcc = row.get(f"srcc_{source}", NAN)
                    if srcc < 0 or pairs < 0.5:
                        some.append(Backward(name, source, srcc, pairs))
            found += sorted(some, key=lambda one: one.pairs)
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain values; numbers that could not be measured are null."""
        return _plain(
            {
                "columns": self.columns,
                "baselines": self.baselines,
                "by_type": self.by_type,
                "by_family": self.by_family,
                "backward": self.backward(),
                "attacks": {**self.attacks, "pooled": self.pooled()},
                "worst_attacks": {
                    attack: {"source": source, **wins.as_json()}
                    for attack, (source, wins) in self.worst().items()
                },
                "stillness": self.stillness and {**vars(self.stillness), "verdict": self.stillness.verdict},
                "certainty": self.certainty,
                "judge": self.judge,
                "judge_pairs": self.judge_pairs,
                "level": self.level,
                "reversed_change": self.reversed_change,
                "data": self.data,
                "unavailable": self.unavailable,
            }
        )

    def metrics(self) -> dict[str, float]:
        """The flat, finite numbers of metrics.json."""
        flat: dict[str, float] = {}
        for name, column in self.columns.items():
            flat.update({f"{key}_{name}": float(value) for key, value in asdict(column).items()})
        for rival, columns in self.baselines.items():
            for key in ("srcc", "adjacent_ordered", "two_apart_ordered"):
                flat.update({f"baseline_{rival}_{key}_{n}": getattr(c, key) for n, c in columns.items()})
        for attack, wins in self.pooled().items():
            flat[f"{attack}_below_original"] = wins.share
        for source, tried in self.attacks.items():
            flat.update({f"{attack}_below_original_{source}": wins.share for attack, wins in tried.items()})
        worst = {attack: wins.share for attack, (_, wins) in self.worst().items()}
        flat.update({f"{attack}_below_original_worst": share for attack, share in worst.items()})
        if worst:
            flat["attacks_below_original_worst"] = min(worst.values())
        if self.by_type:
            flat["ranked_backwards"] = float(len({(one.name, one.source) for one in self.backward()}))
        if self.stillness is not None:
            flat["stillness_gain"] = self.stillness.verdict
            flat.update({f"motion_srcc_{source}": v for source, v in self.stillness.motion.items()})
            for name, probe in self.stillness.slowed.items():
                flat[f"moving_above_{name}"], flat[f"gain_{name}"] = probe.wins.share, probe.gain
        if self.certainty is not None:
            flat["spread_error_srcc"] = self.certainty.error_srcc
            for name, sides in self.certainty.pairs.items():
                flat.update({f"pairs_{side}_spread_{name}": wins.share for side, wins in sides.items()})
        if self.judge is not None:
            flat["judge_srcc"], flat["judge_srcc_low"] = self.judge.value, self.judge.low
            flat["judge_srcc_high"], flat["judge_prompts"] = self.judge.high, float(self.judge.clusters)
            flat["judge_pair_accuracy"] = self.judge_pairs
        flat["reversed_change"] = self.reversed_change
        return {key: float(value) for key, value in flat.items() if math.isfinite(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, Wins):
        return _plain(value.as_json())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
