"""Measuring a reward on held-out content: what fills its card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from components.reward.base import Rating
from components.reward.card.agreement import by_family, by_type, columns, masks, within_groups
from components.reward.card.attacks import ATTACKS, ScoreClips, attack_wins, generator_wins, picked
from components.reward.card.card import Card, Wins
from components.reward.card.ensemble import uncertainty
from components.reward.card.heldout import PRISTINE, built, fit_baselines, pieces, pools
from components.reward.card.stillness import stillness
from components.reward.distortions import GENERATED_ATTACKS, LEVELS, REGISTRY
from components.reward.ladders.ladder import CHUNK, Ladders, join, seen_types
from components.reward.ladders.sources import Groups, LadderSources, SourceClips, judge_of
from components.reward.params import CardParams
from components.runtime.compute.devices import available_cpus
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.seeds import derive
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.progress import Progress

if TYPE_CHECKING:
    from components.generator.generator import Generator

#: uint8 (B, T, 3, H, W) and their statistics where known -> their rating. No aspects: there is no ensemble.
RateClips = Callable[[Tensor, Tensor | None], Rating]
BLOCK = 4 * CHUNK
#: Up to so many ladders this process builds itself: workers take seconds to start.
FEW_LADDERS = 200


@dataclass(frozen=True)
class CardMeasurements:
    """A card, and what its plots show.

    Attributes:
        ladders: all held-out ladders, without their pictures.
        scores: (N, 6) float64 of their clips.
        judged: (P, N) quality of the card's samples by the independent judge; None where it cannot read them.
    """

    card: Card
    ladders: Ladders
    scores: np.ndarray
    judged: Tensor | None


def measure(
    rate: RateClips,
    material: LadderSources,
    params: CardParams,
    *,
    heldout_types: Sequence[str],
    seed: int,
    stop: StopSignal,
    generator: Generator | None = None,
    cache: Path | None = None,
) -> CardMeasurements:
    """Fill a reward's card.

    Args:
        rate: the reward.
        material: held-out clips to measure on, training clips to fit the baselines to.
        params: how large the measurements are.
        heldout_types: distortions that the reward was never trained on.
        seed: of the run.
        generator: for the attacks that it draws itself; None leaves them out.
        cache: folder of labels measured before.

    Raises:
        InputError: a score is not finite.
        Interrupted: a stop was asked for.
    """
    seed = derive(seed, "card")
    clips = pools(material)
    count = len(REGISTRY) * sum(min(params.contents_per_type, len(pool)) for pool in clips.values())
    cores = available_cpus()

    def score(frames: Tensor, statistics: Tensor | None) -> Tensor:
        return rate(frames, statistics).score

    card = Card()
    with ProcessPool(cores if cores > 1 and count > FEW_LADDERS else 0, stop) as pool:
        rivals = fit_baselines(pool, material, heldout_types, seed, cache) if params.baselines else None
        work = pieces(clips, list(REGISTRY), params.contents_per_type, seed, cache=cache, rivals=rivals)
        ladders: list[Ladders] = []
        ratings: list[Rating] = []
        rated: list[dict[str, np.ndarray]] = []
        with Progress(sum(len(piece.contents) for piece in work), "reward: held-out ladders") as progress:
            for part in built(pool, work):
                ladders.append(part.ladders.without_frames())
                ratings.append(
                    _finite(rate(part.ladders.frames.flatten(0, 1), part.ladders.statistics.flatten(0, 1)))
                )
                rated.append(part.rivals)
                progress.update(len(part.ladders))
        total = sum(min(params.attacks, len(c)) for c in clips.values()) * (1 + len(ATTACKS))
        with Progress(total, "reward: attacks") as progress:
            card.attacks = attack_wins(score, clips, params.attacks, derive(seed, "attacks"), pool, progress)
    held, rating = join(ladders), _joined(ratings)
    scores = _table(rating.score, len(held))
    rows = masks(held, set(seen_types(heldout_types)))
    card.columns = columns(scores, held, rows)
    card.baselines = {
        name: columns(np.concatenate([part[name] for part in rated]), held, rows)
        for name in (rivals.names if rivals is not None else ())
    }
    card.by_type, card.by_family = by_type(scores, held), by_family(scores, held)
    card.score_per_level = float((scores[:, 0] - scores[:, -1]).mean()) / LEVELS
    generated, missing = _generator_attacks(score, material, generator, params.generator_attacks, seed, stop)
    if generated:
        card.attacks.setdefault("generated", {}).update(generated)
    card.stillness = stillness(
        score, clips, params.attacks, derive(seed, "stillness"), card.score_per_level, stop
    )
    card.time_reversal_change = _time_reversal_change(score, clips, seed, float(scores.std()))
    judged = judge_of(material.samples_card) if "generated" in clips else None
    samples = None
    if judged is not None:
        samples = _judged(rate, material.samples_card, judged)
        card.judge, card.judge_pairs = within_groups(samples[0], samples[2])
    if rating.aspects:
        aspects = {name: _table(values, len(held)) for name, values in rating.aspects.items()}
        card.uncertainty = uncertainty(held, scores, _table(rating.uncertainty, len(held)), aspects, samples)
    for source in PRISTINE:
        if source not in clips:
            missing[source] = f"the corpus has no {source} clips in its test split"
    if rivals is not None and rivals.niqe is None:
        missing["niqe"] = "the training clips show too little to fit it to"
    if "generated" in clips and judged is None:
        missing["judge"] = (
            "the sampled prompts are not of the miniature world, which is what the judge can read"
        )
    card.unavailable = missing
    card.data = _data(held, clips, params, heldout_types)
    return CardMeasurements(card, held, scores, judged)


def _finite(rating: Rating) -> Rating:
    """The rating itself.

    Raises:
        InputError: a score is not finite. Nothing can be said of such a reward, so its card is not begun.
    """
    wrong = int((~torch.isfinite(rating.score)).sum())
    if wrong:
        raise InputError(
            f"reward: {wrong} of {len(rating.score)} held-out clips got a score that is not a finite number, "
            "so it cannot be measured; check the weights it was made from"
        )
    return rating


def _joined(ratings: Sequence[Rating]) -> Rating:
    return Rating(
        torch.cat([rating.score for rating in ratings]),
        torch.cat([rating.uncertainty for rating in ratings]),
        {name: torch.cat([rating.aspects[name] for rating in ratings]) for name in ratings[0].aspects},
    )


def _table(values: Tensor, rows: int) -> np.ndarray:
    """(N * K,) as (N, K) float64."""
    return values.double().reshape(rows, -1).numpy()


def _judged(rate: RateClips, groups: Groups, judged: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P, N) scores and uncertainties of the samples, and what the judge says of them."""
    clips = groups.frames.flatten(0, 1)
    rating = _joined([rate(block, None) for block in clips.split(BLOCK)])
    prompts = len(groups.frames)
    return _table(rating.score, prompts), _table(rating.uncertainty, prompts), judged.double().numpy()


def throughput(score: ScoreClips, clips: dict[str, SourceClips], most: int = 256) -> dict[str, float]:
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
    score: ScoreClips,
    material: LadderSources,
    generator: Generator | None,
    count: int,
    seed: int,
    stop: StopSignal,
) -> tuple[dict[str, Wins], dict[str, str]]:
    """Wins over the attacks that the generator draws, by attack; or why there are none."""
    texts = [text for text in material.samples_card.texts if text is not None]
    reason = ""
    if generator is None:
        reason = "no generator was at hand to draw them"
    elif not texts:
        reason = "the texts of the card's prompts are not known"
    elif not count:
        reason = "reward.card.generator_attacks is 0"
    if generator is None or reason:
        return {}, {", ".join(GENERATED_ATTACKS): reason}
    prompts = [texts[i % len(texts)] for i in range(count)]
    return generator_wins(score, generator, prompts, material.geometry, seed, stop), {}


def _time_reversal_change(score: ScoreClips, clips: dict[str, SourceClips], seed: int, unit: float) -> float:
    """Mean change of the score of pristine clips played backwards, in `unit`; near 0 is right."""
    parts = [
        pool.frames[picked(pool, 24, seed, "reversed", name)]
        for name, pool in clips.items()
        if name in PRISTINE
    ]
    if not parts:
        return float("nan")
    originals = torch.cat(parts)
    change = (score(originals.flip(1), None) - score(originals, None)).abs()
    return float(change.mean()) / max(unit, 1e-9)


def _data(
    held: Ladders, clips: dict[str, SourceClips], params: CardParams, heldout_types: Sequence[str]
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
