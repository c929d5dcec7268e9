"""The ladders that the card is measured on, built piece by piece: no more pictures in memory than are looked
at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.reward.card.niqe_brisque import Baselines
from components.reward.distortions import LEVELS, Recipe
from components.reward.ladders.ladder import NAMES, TENSORS, Ladders, build, seen_types
from components.reward.ladders.sources import LadderSources, SourceClips
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.seeds import derive, torch_generator

PRISTINE = ("world", "footage")
#: Ladders built at once.
PIECE = 12
#: Levels of the training ladders that baselines are fitted to.
FIT_LEVELS = (0, 1, 3, 5)
#: Training clips of each source that NIQE takes as pristine.
PRISTINE_CLIPS = 60


@dataclass(frozen=True)
class Piece:
    """Some ladders to build. Arrays, not tensors: between processes tensors would lie in shared memory, of
    which containers have little.

    Attributes:
        frames: uint8 (N, T, 3, H, W), the clip each ladder stands on.
        levels: of all ladders.
        rivals: measures to rate every clip with.
    """

    source: str
    frames: np.ndarray
    contents: list[str]
    recipes: list[Recipe]
    levels: tuple[int, ...]
    seed: int
    cache: Path | None
    rivals: Baselines | None


@dataclass(frozen=True)
class Built:
    """Ladders, and what each baseline says of their clips: (N, K) float64."""

    ladders: Ladders
    rivals: dict[str, np.ndarray]


def pools(material: LadderSources) -> dict[str, SourceClips]:
    """Held-out clips by source, "generated" among them; only sources that have any."""
    sources = {**material.test, "generated": material.samples_card.clips()}
    return {name: clips for name, clips in sources.items() if len(clips)}


def pieces(
    clips: dict[str, SourceClips],
    types: Sequence[str],
    per_type: int,
    seed: int,
    *,
    levels: Sequence[int] = range(LEVELS + 1),
    cache: Path | None = None,
    rivals: Baselines | None = None,
) -> list[Piece]:
    """Ladders of every type on `per_type` clips of each source; each type gets its own clips."""
    work = []
    for source, pool in clips.items():
        rows: list[int] = []
        recipes: list[Recipe] = []
        for name in types:
            order = torch.randperm(len(pool), generator=torch_generator(seed, source, name)).tolist()
            rows += order[:per_type]
            recipes += [(name,)] * len(order[:per_type])
        for start in range(0, len(rows), PIECE):
            part = slice(start, start + PIECE)
            frames = pool.frames[rows[part]].numpy()
            contents = [pool.contents[row] for row in rows[part]]
            piece_seed = derive(seed, "piece", source, start)
            work.append(
                Piece(source, frames, contents, recipes[part], tuple(levels), piece_seed, cache, rivals)
            )
    return work


def make(piece: Piece) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A piece's ladders as arrays and lists, and the verdicts of its baselines."""
    count = len(piece.contents)
    ladders = build(
        torch.from_numpy(piece.frames),
        piece.contents,
        piece.recipes,
        torch.tensor(piece.levels).expand(count, -1),
        source=piece.source,
        seed=piece.seed,
        labelled=piece.source in PRISTINE,
        cache=piece.cache,
    )
    rivals = {}
    if piece.rivals is not None:
        rated = piece.rivals.rate(ladders.frames.flatten(0, 1))
        rivals = {name: value.double().reshape(count, -1).numpy() for name, value in rated.items()}
    flat: dict[str, Any] = {name: getattr(ladders, name).numpy() for name in TENSORS}
    return flat | {name: getattr(ladders, name) for name in NAMES}, rivals


def built(workers: ProcessPool, work: Sequence[Piece]) -> Iterator[Built]:
    """The pieces' ladders one after the other, with their pictures."""
    for flat, rivals in workers.map(make, work):
        tensors = {name: torch.from_numpy(flat[name]) for name in TENSORS}
        yield Built(Ladders(**flat | tensors), rivals)


def fit_baselines(
    workers: ProcessPool, material: LadderSources, heldout_types: Sequence[str], seed: int, cache: Path | None
) -> Baselines:
    """The baselines, fitted to pristine training clips and to labelled ladders on them of the types that the
    reward may learn from too."""
    clips = {name: pool for name, pool in material.train.items() if len(pool)}
    baseline_seed = derive(seed, "baselines")
    pristine: list[Tensor] = []
    for name, pool in clips.items():
        order = torch.randperm(len(pool), generator=torch_generator(baseline_seed, "pristine", name)).tolist()
        pristine.append(pool.frames[order[:PRISTINE_CLIPS]])
    frames, labels, contents = [], [], []
    work = pieces(clips, seen_types(heldout_types), 1, baseline_seed, levels=FIT_LEVELS, cache=cache)
    for part in built(workers, work):
        frames.append(part.ladders.frames.flatten(0, 1))
        labels.append(part.ladders.labels.flatten())
        contents += [name for name in part.ladders.contents for _ in FIT_LEVELS]
    return Baselines.fit(torch.cat(pristine), torch.cat(frames), torch.cat(labels), contents)
