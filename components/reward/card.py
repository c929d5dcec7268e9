"""The reward card: what a reward shows on held-out content, beside simple baselines, and against an
independent judge."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.reward import baselines
from components.reward.correlation import Interval, bootstrap_mean, krcc, plcc_rmse, srcc
from components.reward.distortions import LEVELS, REGISTRY
from components.reward.ladders import CHUNK, Ladders, build, join, seen_types
from components.reward.material import Clips, Groups, Material
from components.reward.params import RewardParams
from components.runtime.interrupts import StopSignal
from components.runtime.progress import Progress
from components.runtime.seeds import derive, torch_generator

ScoreClips = Callable[[Tensor, Tensor | None], Tensor]
"""uint8 (B, T, 3, H, W) and their statistics where known -> (B,) scores, higher is better."""

ATTACKS: dict[str, tuple[str, int]] = {
    "frozen": ("freeze", 5),
    "blurred": ("blur", 4),
    "blank": ("blank", 5),
    "erased": ("erase", 5),
}
"""Degenerate clips an aligned policy could turn to, and the distortion and level that make them."""


@dataclass(frozen=True)
class Column:
    """Agreement on one set of held-out ladders; nan where the set has no labels or is too small."""

    clips: int
    srcc: float
    krcc: float
    plcc: float
    rmse: float
    srcc_fidelity: float
    reference_above: float
    adjacent_ordered: float
    fully_ordered: float


@dataclass
class Card:
    """All measurements of a reward; `unavailable` says why a number is missing."""

    columns: dict[str, Column] = field(default_factory=dict)
    baselines: dict[str, dict[str, Column]] = field(default_factory=dict)
    by_type: dict[str, dict[str, float]] = field(default_factory=dict)
    attacks: dict[str, dict[str, float]] = field(default_factory=dict)
    judge: Interval | None = None
    judge_pairs: float = float("nan")
    reversed_change: float = float("nan")
    unavailable: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values; numbers that could not be measured are null."""
        return _without_nan(asdict(self))

    def metrics(self) -> dict[str, float]:
        """The flat, finite numbers of metrics.json."""
        flat: dict[str, float] = {}
        for name, column in self.columns.items():
            flat.update({f"{key}_{name}": float(value) for key, value in asdict(column).items()})
        for rival, columns in self.baselines.items():
            flat.update({f"baseline_{rival}_srcc_{name}": column.srcc for name, column in columns.items()})
        for source, wins in self.attacks.items():
            flat.update({f"{attack}_below_original_{source}": value for attack, value in wins.items()})
        if self.judge is not None:
            flat["judge_srcc"], flat["judge_srcc_low"] = self.judge.mean, self.judge.low
            flat["judge_srcc_high"], flat["judge_prompts"] = self.judge.high, float(self.judge.clusters)
            flat["judge_pair_accuracy"] = self.judge_pairs
        flat["reversed_change"] = self.reversed_change
        return {key: float(value) for key, value in flat.items() if math.isfinite(value)}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def score_ladders(score: ScoreClips, ladders: Ladders) -> np.ndarray:
    """(N, K) float64 scores of every clip of every ladder."""
    flat, statistics = ladders.frames.flatten(0, 1), ladders.statistics.flatten(0, 1)
    block = 4 * CHUNK
    parts = [score(flat[i : i + block], statistics[i : i + block]) for i in range(0, len(flat), block)]
    return torch.cat(parts).double().reshape(ladders.frames.shape[:2]).numpy()


def measure_column(scores: np.ndarray, ladders: Ladders) -> Column:
    """Compares the scores of ladders with their labels and with their order.

    Correlations count a content's pristine clip once, however many ladders stand on it. Pairs too alike to
    be told apart are left
    out of every count; equal scores count as wrong.
    """
    seen = ladders.seen.numpy() > 0
    known = ~np.isnan(ladders.labels.numpy())
    counted = known & np.concatenate((np.zeros((len(ladders), 1), bool), seen[:, 0, 1:]), axis=1)
    first: set[str] = set()
    for row, content in enumerate(ladders.contents):
        if known[row, 0] and content not in first:
            first.add(content)
            counted[row, 0] = True
    flat, truth = scores[counted], ladders.labels.numpy()[counted]
    plcc, rmse = plcc_rmse(flat, truth) if len(flat) else (float("nan"), float("nan"))
    lead = scores[:, :, None] > scores[:, None, :]
    above = lead[:, 0, 1:][seen[:, 0, 1:]]
    steps = np.arange(scores.shape[1] - 1)
    adjacent = lead[:, steps, steps + 1]
    adjacent_seen = seen[:, steps, steps + 1]
    whole = [bool(row[mask].all()) for row, mask in zip(adjacent, adjacent_seen, strict=True) if mask.any()]
    return Column(
        clips=int(counted.sum()) if counted.any() else int(scores.size),
        srcc=srcc(flat, truth),
        krcc=krcc(flat, truth),
        plcc=plcc,
        rmse=rmse,
        srcc_fidelity=srcc(flat, ladders.similarity.numpy()[counted]),
        reference_above=float(above.mean()) if above.size else float("nan"),
        adjacent_ordered=float(adjacent[adjacent_seen].mean()) if adjacent_seen.any() else float("nan"),
        fully_ordered=float(np.mean(whole)) if whole else float("nan"),
    )


def within_groups(scores: np.ndarray, judged: np.ndarray, seed: int) -> tuple[Interval, float]:
    """Rank correlation of two (P, N) verdicts inside each group, with its interval over groups; and pair
    accuracy.

    Groups in which either side is constant say nothing and are left out. The bootstrap draws prompts, not
    clips.
    """
    each = [srcc(a, b) for a, b in zip(scores, judged, strict=True)]
    right, total = 0.0, 0
    for a, b in zip(scores, judged, strict=True):
        order_a, order_b = np.sign(a[:, None] - a[None]), np.sign(b[:, None] - b[None])
        upper = np.triu(np.ones_like(order_b, dtype=bool), 1) & (order_b != 0)
        right += float((order_a == order_b)[upper].sum())
        total += int(upper.sum())
    return bootstrap_mean(each, seed), right / total if total else float("nan")


def heldout_ladders(
    material: Material, params: RewardParams, stop: StopSignal, device: torch.device
) -> dict[str, Ladders]:
    """Full ladders (levels 0 to 5) of every distortion on held-out content, by source; each type gets its
    own contents."""
    seed = derive(params.run.seed, "card")
    sources = {**material.test, "generated": material.samples_card.clips()}
    per_type = params.card.contents_per_type
    names = list(REGISTRY)
    built: dict[str, Ladders] = {}
    total = sum(len(names) * min(per_type, len(clips)) for clips in sources.values())
    with Progress(total, "reward: held-out ladders") as progress:
        for source, clips in sources.items():
            if not len(clips):
                continue
            rows, recipes = [], []
            for name in names:
                order = torch.randperm(len(clips), generator=torch_generator(seed, source, name)).tolist()
                rows += order[:per_type]
                recipes += [(name,)] * len(order[:per_type])
            levels = torch.arange(LEVELS + 1).expand(len(rows), -1)
            built[source] = build(
                clips.frames[rows],
                [clips.contents[i] for i in rows],
                recipes,
                levels,
                source=source,
                seed=seed,
                labelled=source != "generated",
                stop=stop,
                progress=progress,
                device=device,
            )
    return built


def attack_wins(score: ScoreClips, clips: Clips, count: int, seed: int) -> dict[str, float]:
    """For each attack the share of clips that score above their attacked copy; copies that look the same
    are left out."""
    order = torch.randperm(len(clips), generator=torch_generator(seed, "attacks")).tolist()[:count]
    frames = clips.frames[order]
    contents = [clips.contents[i] for i in order]
    wins = {}
    for attack, (name, level) in ATTACKS.items():
        levels = torch.tensor([[0, level]]).expand(len(order), -1)
        pairs = build(
            frames, contents, [(name,)] * len(order), levels, source=attack, seed=seed, labelled=False
        )
        scores = score_ladders(score, pairs)
        seen = pairs.seen[:, 0, 1].numpy() > 0
        wins[attack] = float((scores[:, 0] > scores[:, 1])[seen].mean()) if seen.any() else float("nan")
    return wins


def measure(
    score: ScoreClips,
    material: Material,
    params: RewardParams,
    *,
    stop: StopSignal,
    device: torch.device,
    judged: Tensor | None,
) -> tuple[Card, Ladders, np.ndarray]:
    """Fills the card.

    Args:
        score: the reward.
        judged: (P, N) verdicts of an independent judge on `material.samples_card`, or None where there is
            no such judge.

    Returns:
        The card, and the held-out ladders of all sources with their scores (N, 6), for plots.
    """
    card = Card()
    seed = derive(params.run.seed, "card")
    parts = heldout_ladders(material, params, stop, device)
    seen = set(seen_types(params.ladders.heldout_types))
    everything = join(list(parts.values()))
    scores = score_ladders(score, everything)
    pristine = [name for name in ("world", "footage") if name in parts]
    masks: dict[str, list[bool]] = {}
    for source in parts:
        masks[source] = [
            s == source and r[0] in seen for s, r in zip(everything.sources, everything.recipes, strict=True)
        ]
    masks["all"] = [
        s in pristine and r[0] in seen for s, r in zip(everything.sources, everything.recipes, strict=True)
    ]
    masks["heldout_types"] = [
        s in pristine and r[0] not in seen
        for s, r in zip(everything.sources, everything.recipes, strict=True)
    ]
    masks["heldout_types_generated"] = [
        s == "generated" and r[0] not in seen
        for s, r in zip(everything.sources, everything.recipes, strict=True)
    ]
    for source in ("world", "footage"):
        if source not in parts:
            card.unavailable[source] = f"the corpus has no {source} clips in its test split"
    _columns(card.columns, scores, everything, masks)
    for rival, rate in _rivals(material).items():
        stop.raise_if_requested()
        card.baselines[rival] = {}
        _columns(card.baselines[rival], score_ladders(rate, everything), everything, masks)
    card.by_type = _by_type(scores, everything)
    for source, pool in {**material.test, "generated": material.samples_card.clips()}.items():
        if len(pool):
            stop.raise_if_requested()
            card.attacks[source] = attack_wins(score, pool, params.card.attacks, derive(seed, source))
    card.reversed_change = _reversed(score, everything, scores)
    if judged is None:
        card.unavailable["judge"] = (
            "the sampled prompts are not of the miniature world, which is what the judge can read"
        )
    else:
        card.judge, card.judge_pairs = within_groups(
            score_groups(score, material.samples_card), judged.numpy(), seed
        )
    return card, everything, scores


def score_groups(score: ScoreClips, groups: Groups) -> np.ndarray:
    """(P, N) scores of a generator's samples."""
    flat = groups.frames.flatten(0, 1)
    parts = [score(flat[i : i + 4 * CHUNK], None) for i in range(0, len(flat), 4 * CHUNK)]
    return torch.cat(parts).reshape(groups.frames.shape[:2]).double().numpy()


def _columns(
    into: dict[str, Column], scores: np.ndarray, ladders: Ladders, masks: dict[str, list[bool]]
) -> None:
    for name, mask in masks.items():
        if any(mask):
            into[name] = measure_column(scores[np.asarray(mask)], ladders.where(mask))


def _by_type(scores: np.ndarray, ladders: Ladders) -> dict[str, dict[str, float]]:
    """For every distortion and source, how often the original lies above its distorted copies."""
    table: dict[str, dict[str, float]] = {}
    for name in REGISTRY:
        table[name] = {}
        for source in dict.fromkeys(ladders.sources):
            mask = [
                r == (name,) and s == source for r, s in zip(ladders.recipes, ladders.sources, strict=True)
            ]
            if any(mask):
                column = measure_column(scores[np.asarray(mask)], ladders.where(mask))
                table[name][source] = column.reference_above
                table[name][f"{source}_srcc"] = column.srcc
    return table


def throughput(score: ScoreClips, clips: Tensor) -> dict[str, float]:
    """Clips and megapixels scored in a second, statistics included.

    Args:
        score: the reward.
        clips: (N, T, 3, H, W), of which at most 256 are scored.
    """
    clips = clips[:256]
    began = time.perf_counter()
    score(clips, None)
    seconds = time.perf_counter() - began
    pixels = clips.shape[0] * clips.shape[1] * clips.shape[3] * clips.shape[4]
    return {"clips_per_second": len(clips) / seconds, "megapixels_per_second": pixels / seconds / 1e6}


def _rivals(material: Material) -> dict[str, ScoreClips]:
    pristine = torch.cat([clips.frames[:200] for clips in material.train.values() if len(clips)])
    natural = baselines.NaturalnessDistance.fit(pristine.float() / 255.0)
    rates: Sequence[tuple[str, Callable[[Tensor], Tensor]]] = (
        ("laplacian_variance", baselines.laplacian_variance),
        ("temporal_steadiness", baselines.temporal_steadiness),
        ("naturalness_distance", natural.score),
    )
    return {name: _on_bytes(rate) for name, rate in rates}


def _on_bytes(rate: Callable[[Tensor], Tensor]) -> ScoreClips:
    return lambda frames, statistics: rate(frames.float() / 255.0)


def _reversed(score: ScoreClips, ladders: Ladders, scores: np.ndarray) -> float:
    """Mean change of the score of pristine clips played backwards, in standard deviations of the scores;
    near 0 is right."""
    originals = ladders.frames[:, 0][::7][:120]
    forward, backward = score(originals, None), score(originals.flip(1), None)
    spread = float(scores.std())
    return float((backward - forward).abs().mean()) / max(spread, 1e-9)
