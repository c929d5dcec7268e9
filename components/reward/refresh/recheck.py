"""A small card from what a reward has kept: held-out ladders as statistics, with no picture looked at again.

Cheap enough to measure every version of a reward that is refreshed. What needs pictures (stillness, reversed
time, attacks that a generator draws, baselines) is in the card of the first version only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.reward.card.agreement import by_family, by_type, columns, masks, within_groups
from components.reward.card.attacks import ScoreClips
from components.reward.card.card import Card, Wins
from components.reward.distortions import ATTACKS, LEVELS
from components.reward.ladders.ladder import CHUNK, Ladders, seen_types
from components.reward.ladders.replay import Kept

BLOCK = 4 * CHUNK


def score_ladders(score: ScoreClips, ladders: Ladders) -> np.ndarray:
    """(N, K) float64 scores of every clip of every ladder, by their statistics."""
    flat, statistics = ladders.frames.flatten(0, 1), ladders.statistics.flatten(0, 1)
    scores = [score(flat[i : i + BLOCK], statistics[i : i + BLOCK]) for i in range(0, len(statistics), BLOCK)]
    return np.concatenate([part.double().numpy() for part in scores]).reshape(ladders.levels.shape)


def recheck(score: ScoreClips, kept: Kept, heldout_types: Sequence[str]) -> Card:
    """Fills the part of a card that statistics can fill.

    Args:
        score: the reward.
        kept: of the reward's first version.
        heldout_types: distortions that no version is trained on.
    """
    held = kept.heldout
    card = Card(unavailable={"baselines, stillness, time_reversal_change, few_steps, early_checkpoint": (
        "a refreshed version is measured on statistics alone, without pictures"
    )})  # fmt: skip
    scores = score_ladders(score, held)
    card.columns = columns(scores, held, masks(held, set(seen_types(heldout_types))))
    card.by_type, card.by_family = by_type(scores, held), by_family(scores, held)
    card.score_per_level = float((scores[:, 0] - scores[:, -1]).mean()) / LEVELS
    card.attacks = attacks_on_ladders(scores, held)
    if kept.judged is None:
        card.unavailable["judge"] = "no judge has seen the samples that the reward kept"
    else:
        statistics = kept.judged.statistics.flatten(0, 1)
        rated = score(statistics.new_zeros((len(statistics), 0)), statistics).double()
        quality = kept.judged.quality.numpy()
        card.judge, card.judge_pairs = within_groups(rated.reshape(quality.shape).numpy(), quality)
    card.data = {"ladders": len(held), "levels": LEVELS, "heldout_types": list(heldout_types)}
    return card


def attacks_on_ladders(scores: np.ndarray, ladders: Ladders) -> dict[str, dict[str, Wins]]:
    """Wins of the original over every attack, by source and attack, read off ladders of the attack's own
    distortion: its column at the attack's level.

    Args:
        scores: (N, 6) of ladders with all six levels.
    """
    wins: dict[str, dict[str, Wins]] = {}
    seen = ladders.seen.numpy() > 0
    for source in dict.fromkeys(ladders.sources):
        for attack, (name, level) in ATTACKS.items():
            rows = np.asarray(
                [r == (name,) and s == source for r, s in zip(ladders.recipes, ladders.sources, strict=True)]
            )
            if rows.any():
                above = scores[rows, 0] > scores[rows, level]
                contents = [content.split("#")[0] for content in np.asarray(ladders.contents)[rows]]
                wins.setdefault(source, {})[attack] = Wins.of(above, seen[rows, 0, level], contents)
    return wins
