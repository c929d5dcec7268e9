"""Ladders: one clip at rising levels of one damage, the only thing the reward learns from.

Inside a ladder the order is known whatever the clip is worth, so a ladder can stand on pristine clips and on
a generator's own samples alike. On the latter nothing but the order is used: an absolute label across
domains would teach the reward what the domain looks like instead of what damage looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.reward.distortions import (
    FAMILIES,
    GENERATIVE,
    LEVELS,
    REGISTRY,
    Recipe,
    apply_recipe,
    random_recipe,
)
from components.reward.features.handcrafted import clip_statistics
from components.reward.labels.label import label
from components.reward.labels.ms_ssim import differs
from components.runtime.compute.seeds import derive, torch_generator
from components.runtime.compute.signals import StopSignal
from components.video.filters import to_float, to_uint8

#: Clips handled at once: what fits the processor's cache.
CHUNK = 32


@dataclass
class Ladders:
    """N ladders of K clips, best first.

    Attributes:
        frames: (N, K, T, 3, H, W) uint8; (N, K, 0) where the pictures were not kept.
        levels: (N, K) float32, rising; the designed severity.
        labels: (N, K) float32 in 0..1, or nan where only the order is known.
        similarity: (N, K) float32 fidelity to the first clip; nan where not measured.
        statistics: (N, K, F) float32.
        seen: (N, K, K) float32, 1 where the two clips differ enough to be told apart.
        recipes, sources, contents: what was done, on what kind of clip, on which one.
    """

    frames: Tensor
    levels: Tensor
    labels: Tensor
    similarity: Tensor
    statistics: Tensor
    seen: Tensor
    recipes: list[Recipe]
    sources: list[str]
    contents: list[str]

    def __len__(self) -> int:
        return len(self.recipes)

    @property
    def has_frames(self) -> bool:
        """Whether the pictures were kept."""
        return self.frames.ndim == 6

    def without_frames(self) -> Ladders:
        """The same without the pictures."""
        return replace(self, frames=torch.zeros((*self.levels.shape, 0), dtype=torch.uint8))

    def where(self, keep: Sequence[bool]) -> Ladders:
        """The ladders picked by a mask of length N."""
        return self.take(torch.tensor(keep, dtype=torch.bool).nonzero().flatten())

    def take(self, index: Tensor) -> Ladders:
        """The ladders at an int64 index, in its order."""
        rows = index.tolist()
        picked: dict[str, Any] = {name: getattr(self, name)[index] for name in TENSORS}
        picked |= {name: [getattr(self, name)[i] for i in rows] for name in NAMES}
        return Ladders(**picked)


TENSORS = ("frames", "levels", "labels", "similarity", "statistics", "seen")
NAMES = ("recipes", "sources", "contents")


def join(parts: Sequence[Ladders]) -> Ladders:
    """Ladders of equal K and geometry, one after the other."""
    kept = [part for part in parts if len(part)]
    joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in kept]) for name in TENSORS}
    joined |= {name: [item for part in kept for item in getattr(part, name)] for name in NAMES}
    return Ladders(**joined)


def seen_types(heldout: Sequence[str]) -> list[str]:
    """Names of the distortions that may be trained on, in the registry's order."""
    return [name for name in REGISTRY if name not in heldout]


def recipe_of(row: int, names: Sequence[str], stressed: Sequence[str], composed: float, seed: int) -> Recipe:
    """The recipe of ladder number `row`: all names get about equal shares, and one more each time one is
    in `stressed`.

    Names come from shuffled rounds, not from independent draws, so that a small set misses no type. A share
    of the ladders, `composed`, gets two to four distortions.
    """
    stream = torch_generator(seed, "recipe", row)
    if float(torch.rand((), generator=stream)) < composed:
        parts = int(torch.randint(2, 5, (), generator=stream))
        return random_recipe(derive(seed, "composition", row), names, min(parts, len(names)))
    pool = [*names, *(name for name in stressed if name in names)]
    turn, place = divmod(row, len(pool))
    return (pool[shuffled(len(pool), seed, "recipes", turn)[place]],)


def levels_of(row: int, clips: int, seed: int) -> list[int]:
    """The severity levels of ladder number `row`: 0 and clips - 1 different ones of 1..5, rising."""
    drawn = torch.randperm(LEVELS, generator=torch_generator(seed, "levels", row))[: clips - 1] + 1
    return [0, *drawn.sort().values.tolist()]


@lru_cache(maxsize=256)
def shuffled(count: int, seed: int, *names: str | int) -> tuple[int, ...]:
    """0..count-1 in the random order of that name."""
    return tuple(torch.randperm(count, generator=torch_generator(seed, *names)).tolist())


def family_of(recipe: Recipe) -> int:
    """Index in FAMILIES of the family that all of a recipe's distortions belong to; -1 where they differ."""
    families = {(REGISTRY[name] if name in REGISTRY else GENERATIVE[name]).family for name in recipe}
    return FAMILIES.index(families.pop()) if len(families) == 1 else -1


def statistics_of(clips: Tensor) -> Tensor:
    """uint8 (N, T, 3, H, W) -> (N, F) float32 statistics of each clip."""
    return torch.cat([clip_statistics(to_float(part)) for part in clips.split(CHUNK)])


def build(
    frames: Tensor,
    contents: Sequence[str],
    recipes: Sequence[Recipe],
    levels: Tensor,
    *,
    source: str,
    seed: int,
    labelled: bool,
    first: Tensor | None = None,
    stop: StopSignal | None = None,
    cache: Path | None = None,
) -> Ladders:
    """Builds one ladder per row.

    Args:
        frames: uint8 (N, T, 3, H, W), the clip each ladder distorts.
        contents: N names; with the seed and the row they fix the random draws.
        recipes: N recipes.
        levels: (N, K) int64, rising, the first 0.
        labelled: whether the clips are pristine, so that the full-reference label means something.
        first: uint8 (N, T, 3, H, W): clips better than `frames`, put before them at level -1. The pair with
            the next clip counts little (one level apart), as a reconstruction loses little.
        cache: folder of labels measured before; None measures all.

    Returns:
        N ladders of K clips (K + 1 with `first`).
    """
    count = len(levels)
    table = torch.empty((*levels.shape, *frames.shape[1:]), dtype=torch.uint8)
    groups: dict[Recipe, list[int]] = {}
    for row, recipe in enumerate(recipes):
        groups.setdefault(tuple(recipe), []).append(row)
    for recipe, members in groups.items():
        for start in range(0, len(members), CHUNK):
            if stop is not None:
                stop.raise_if_requested()
            rows = torch.tensor(members[start : start + CHUNK])
            clips = to_float(frames[rows])
            for level in range(LEVELS + 1):
                at, place = (levels[rows] == level).nonzero(as_tuple=True)
                if not len(at):
                    continue
                seeds = [derive(seed, source, contents[int(rows[i])], int(rows[i])) for i in at]
                damaged = apply_recipe(recipe, clips[at], level, seeds)
                table[rows[at], place] = to_uint8(damaged)
    severity = levels.float()
    if first is not None:
        table = torch.cat((first[:, None], table), dim=1)
        severity = torch.cat((torch.full((count, 1), -1.0), severity), dim=1)
    ladders = ladders_of_clips(table, severity, recipes, contents, source=source)
    if labelled:
        parts = [len(recipe) for recipe in recipes]
        labels, similarity = label(table[:, 0], table, levels, parts, cache=cache, stop=stop)
        ladders = replace(ladders, labels=labels, similarity=similarity)
    return ladders


def ladders_of_clips(
    table: Tensor,
    severity: Tensor,
    recipes: Sequence[Recipe],
    contents: Sequence[str],
    *,
    source: str,
) -> Ladders:
    """Ladders of clips that are there already, of which only the order is known.

    Args:
        table: uint8 (N, K, T, 3, H, W), best first.
        severity: (N, K) float32, rising.
        recipes, contents: N each.
    """
    count, length = severity.shape
    unknown = torch.full(severity.shape, float("nan"))
    seen = torch.zeros(count, length, length)
    for better, worse in combinations(range(length), 2):
        pairs = zip(table[:, better].split(4 * CHUNK), table[:, worse].split(4 * CHUNK), strict=True)
        parts = [differs(to_float(a), to_float(b)).float() for a, b in pairs]
        seen[:, better, worse] = torch.cat(parts)
    return Ladders(
        table, severity, unknown, unknown.clone(),
        statistics_of(table.flatten(0, 1)).reshape(count, length, -1), seen,
        [tuple(recipe) for recipe in recipes], [source] * count, list(contents),
    )  # fmt: skip
