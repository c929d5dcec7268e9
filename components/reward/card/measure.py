"""Measuring a reward on held-out content: what fills its card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from components.reward.card import attacks as probes
from components.reward.card import ensemble as certainty
from components.reward.card.agreement import by_family, by_type, columns, masks
from components.reward.card.attacks import ScoreClips
from components.reward.card.card import Agreement, Card
from components.reward.card.correlation import srcc
from components.reward.card.heldout import PRISTINE, built, fit_baselines, pieces, pools
from components.reward.distortions import GENERATED_ATTACKS, LEVELS, REGISTRY
from components.reward.ladders.ladder import CHUNK, Ladders, join, seen_types
from components.reward.ladders.sources import Clips, Groups, Material
from components.reward.params import CardParams
from components.reward.scoring.trained import Rating
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.seeds import derive
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.progress import Progress
from components.runtime.stats import mean_over_clusters

if TYPE_CHECKING:
    from components.generator.generator import Generator

RateClips = Callable[[Tensor, Tensor | None], Rating]
"""As `ScoreClips`, with spread and aspects."""
BLOCK = 4 * CHUNK
FEW_LADDERS = 200
"""Up to so many this process builds: others take seconds to start."""


@dataclass(frozen=True)
class Measured:
    """A card, and what its plots show.

    Attributes:
        ladders: all held-out ladders, without their pictures.
        scores: (N, 6) float64 of their clips.
    """

    card: Card
    ladders: Ladders
    scores: np.ndarray


def measure(
    score: ScoreClips,
    material: Material,
    params: CardParams,
    *,
    heldout_types: Sequence[str],
    seed: int,
    stop: StopSignal,
    judged: Tensor | None = None,
    rate: RateClips | None = None,
    generator: Generator | None = None,
    cache: Path | None = None,
    workers: int = 0,
    sources: Sequence[str] | None = None,
) -> Measured:
    """Fills a reward's card.

    Args:
        score: the reward.
        material: of which held-out clips are measured on, and training clips fit the baselines.
        params: how large the measurements are.
        heldout_types: distortions that the reward was never trained on.
        seed: of the run.
        judged: (P, N) verdicts of an independent judge on `material.samples_card`, or None where there is
            no such judge.
        rate: the reward with its spread and aspects, which are measured where it is given.
        generator: for the attacks that it draws itself; None leaves them out.
        cache: folder of labels measured before.
        workers: processes that build ladders and attacks; with 0, and where there is little to build, this
            one does.
        sources: of "world", "footage", "generated" those to measure on; None for all there are.

    Raises:
        InputError: a score is not finite.
        Interrupted: a stop was asked for.
    """
    card = Card()
    seed = derive(seed, "card")
    clips = pools(material, sources)
    types = list(REGISTRY)
    count = len(types) * sum(min(params.contents_per_type, len(pool)) for pool in clips.values())
    with ProcessPool(workers if count > FEW_LADDERS else 0, stop) as crew:
        rivals = fit_baselines(crew, material, heldout_types, seed, cache) if params.baselines else None
        work = pieces(clips, types, params.contents_per_type, seed, cache=cache, rivals=rivals)
        outputs = _Outputs()
        with Progress(sum(len(p.contents) for p in work), "reward: held-out ladders") as progress:
            for part in built(crew, work):
                outputs.add(part.ladders, part.rivals, score, rate)
                progress.update(len(part.ladders))
        held = join(outputs.ladders)
        scores = np.concatenate(outputs.scores)
        rows = masks(held, set(seen_types(heldout_types)))
        columns(card.columns, scores, held, rows)
        for name in rivals.names if rivals is not None else ():
            rated = np.concatenate([part[name] for part in outputs.rivals])
            columns(card.baselines.setdefault(name, {}), rated, held, rows)
        card.by_type, card.by_family = by_type(scores, held), by_family(scores, held)
        card.score_per_level = float((scores[:, 0] - scores[:, -1]).mean()) / LEVELS
        total = sum(min(params.attacks, len(c)) for c in clips.values()) * (1 + len(probes.ATTACKS))
        with Progress(total, "reward: attacks") as progress:
            card.attacks = probes.attack_wins(
                score, clips, params.attacks, derive(seed, "attacks"), crew, progress
            )
    _generator_attacks(card, score, material, generator, params, seed, stop)
    card.stillness = probes.stillness(
        score, clips, params.attacks, derive(seed, "stillness"), card.score_per_level, stop
    )
    card.time_reversal_change = _reversed(score, clips, seed, float(scores.std()))
    groups = None
    if "generated" in clips:
        groups = _judge(card, score, rate, material.samples_card, judged)
    if rate is not None:
        card.uncertainty = certainty.certainty(
            held, scores, np.concatenate(outputs.spread), outputs.joined_aspects(), groups
        )
    for source in PRISTINE:
        if source not in clips and (sources is None or source in sources):
            card.unavailable[source] = f"the corpus has no {source} clips in its test split"
    if rivals is not None and rivals.niqe is None:
        card.unavailable["niqe"] = "the training clips show too little to fit it to"
    card.data = _data(held, clips, params, heldout_types)
    return Measured(card, held, scores)


@dataclass
class _Outputs:
    """What comes of every piece of ladders."""

    ladders: list[Ladders] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    spread: list[np.ndarray] = field(default_factory=list)
    aspects: list[dict[str, np.ndarray]] = field(default_factory=list)
    rivals: list[dict[str, np.ndarray]] = field(default_factory=list)

    def add(
        self, part: Ladders, rivals: dict[str, np.ndarray], score: ScoreClips, rate: RateClips | None
    ) -> None:
        shape = part.frames.shape[:2]
        flat, statistics = part.frames.flatten(0, 1), part.statistics.flatten(0, 1)
        if rate is None:
            self.scores.append(_finite(score(flat, statistics)).double().reshape(shape).numpy())
        else:
            rating = rate(flat, statistics)
            _finite(rating.score)
            self.scores.append(rating.score.double().reshape(shape).numpy())
            self.spread.append(rating.spread.double().reshape(shape).numpy())
            self.aspects.append(
                {name: value.double().reshape(shape).numpy() for name, value in rating.aspects.items()}
            )
        self.rivals.append(rivals)
        self.ladders.append(part.without_frames())

    def joined_aspects(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate([part[name] for part in self.aspects]) for name in self.aspects[0]}


def _finite(scores: Tensor) -> Tensor:
    """The scores themselves.

    Raises:
        InputError: one is not finite. Nothing can be said of such a reward, so its card is not begun.
    """
    wrong = int((~torch.isfinite(scores)).sum())
    if wrong:
        raise InputError(
            f"reward: {wrong} of {len(scores)} held-out clips got a score that is not a finite number, so it "
            "cannot be measured; check the weights it was made from"
        )
    return scores


def within_groups(scores: np.ndarray, judged: np.ndarray) -> tuple[Agreement, float]:
    """Rank correlation of two (P, N) verdicts inside each group, with its interval over groups; and pair
    accuracy.

    Groups in which either side is constant say nothing and are left out. The interval is over prompts, not
    clips.
    """
    each = [srcc(a, b) for a, b in zip(scores, judged, strict=True)]
    right, total = 0.0, 0
    for a, b in zip(scores, judged, strict=True):
        order_a, order_b = np.sign(a[:, None] - a[None]), np.sign(b[:, None] - b[None])
        upper = np.triu(np.ones_like(order_b, dtype=bool), 1) & (order_b != 0)
        right += float((order_a == order_b)[upper].sum())
        total += int(upper.sum())
    mean = mean_over_clusters(each, bound=1.0)
    return Agreement(mean.value, *mean.ends, mean.clusters), right / total if total else float("nan")


def throughput(score: ScoreClips, clips: dict[str, Clips], most: int = 256) -> dict[str, float]:
    """Clips and megapixels scored in a second, statistics included.

    Args:
        score: the reward.
        clips: by source, of which at most `most` are scored.
    """
    frames = torch.cat([pool.frames[: most // len(clips)] for pool in clips.values() if len(pool)])
    began = time.perf_counter()
    score(frames, None)
    seconds = time.perf_counter() - began
    pixels = frames.shape[0] * frames.shape[1] * frames.shape[3] * frames.shape[4]
    return {"clips_per_second": len(frames) / seconds, "megapixels_per_second": pixels / seconds / 1e6}


def _generator_attacks(
    card: Card,
    score: ScoreClips,
    material: Material,
    generator: Generator | None,
    params: CardParams,
    seed: int,
    stop: StopSignal,
) -> None:
    texts = [text for text in material.samples_card.texts if text is not None]
    reason = ""
    if generator is None:
        reason = "no generator was at hand to draw them"
    elif not texts:
        reason = "the texts of the card's prompts are not known"
    elif not params.generator_attacks:
        reason = "reward.card.generator_attacks is 0"
    if generator is None or reason:
        card.unavailable[", ".join(GENERATED_ATTACKS)] = reason
        return
    prompts = [texts[i % len(texts)] for i in range(params.generator_attacks)]
    wins = probes.generator_wins(score, generator, prompts, material.geometry, seed, stop)
    card.attacks.setdefault("generated", {}).update(wins)


def _judge(
    card: Card,
    score: ScoreClips,
    rate: RateClips | None,
    groups: Groups,
    judged: Tensor | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Agreement with the independent judge; (P, N) scores, spreads and verdicts where all are known."""
    if judged is None:
        card.unavailable["judge"] = (
            "the sampled prompts are not of the miniature world, which is what the judge can read"
        )
        return None
    flat, shape, verdicts = groups.frames.flatten(0, 1), groups.frames.shape[:2], judged.double().numpy()
    if rate is None:
        plain = torch.cat([score(flat[i : i + BLOCK], None) for i in range(0, len(flat), BLOCK)])
        card.judge, card.judge_pairs = within_groups(plain.double().reshape(shape).numpy(), verdicts)
        return None
    ratings = [rate(flat[i : i + BLOCK], None) for i in range(0, len(flat), BLOCK)]
    scores, spread = (
        torch.cat([getattr(rating, name) for rating in ratings]).double().reshape(shape).numpy()
        for name in ("score", "spread")
    )
    card.judge, card.judge_pairs = within_groups(scores, verdicts)
    return scores, spread, verdicts


def _reversed(score: ScoreClips, clips: dict[str, Clips], seed: int, unit: float) -> float:
    """Mean change of the score of pristine clips played backwards, in `unit`; near 0 is right."""
    parts = [
        pool.frames[probes.picked(pool, 24, seed, "reversed", name)]
        for name, pool in clips.items()
        if name in PRISTINE
    ]
    if not parts:
        return float("nan")
    originals = torch.cat(parts)
    change = (score(originals.flip(1), None) - score(originals, None)).abs()
    return float(change.mean()) / max(unit, 1e-9)


def _data(
    held: Ladders, clips: dict[str, Clips], params: CardParams, heldout_types: Sequence[str]
) -> dict[str, object]:
    """What the numbers rest on."""
    return {
        "sources": {
            name: {
                "clips": len(pool),
                "contents": len({content.split("#")[0] for content in pool.contents}),
                "ladders": sum(source == name for source in held.sources),
            }
            for name, pool in clips.items()
        },
        "types": len({recipe for recipe in held.recipes}),
        "heldout_types": [name for name in heldout_types if name in REGISTRY],
        "levels": LEVELS,
        "contents_per_type": params.contents_per_type,
        "attacks": params.attacks,
    }
