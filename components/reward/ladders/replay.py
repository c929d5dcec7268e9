"""Ladders that a reward keeps in its artifact, so that it can be refreshed without corpus and generator.

Two files in the folder `refresh/`: some of its training ladders (against forgetting), and those of its card
(to measure a new version). They hold statistics, levels and labels as float16, no pictures: a few megabytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from components.reward.ladders.batches import Shards
from components.reward.ladders.ladder import TENSORS, Ladders, join, statistics_of
from components.reward.ladders.ladder_file import read_ladders, write_ladders
from components.reward.ladders.sources import Groups
from components.runtime.errors import InputError
from components.runtime.io.files import sort_safetensors_header

FOLDER = "refresh"
REPLAY = f"{FOLDER}/replay.safetensors"
HELDOUT = f"{FOLDER}/heldout.safetensors"
#: Training ladders kept. Every shard is a mix of all sources, so the first ones are too.
KEPT = 1024


@dataclass(frozen=True)
class Judged:
    """A generator's samples that an independent judge has rated.

    Attributes:
        statistics: (P, N, F) float32, N samples for each of P prompts.
        quality: (P, N) float64, the judge's ratings.
    """

    statistics: Tensor
    quality: Tensor


@dataclass(frozen=True)
class Kept:
    """What `keep` wrote, read back.

    Attributes:
        replay: training ladders.
        heldout: held-out ladders of all six levels.
        judged: None where no judge can rate the samples.
    """

    replay: Ladders
    heldout: Ladders
    judged: Judged | None


def keep(folder: Path, shards: Shards, heldout: Ladders, samples: Groups, quality: Tensor | None) -> None:
    """Writes both files.

    Args:
        folder: the reward's.
        shards: its training ladders, of which the first are kept.
        heldout: the ladders of its card.
        samples: those of its card.
        quality: (P, N) ratings of the samples by the independent judge, None without one.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    parts: list[Ladders] = []
    for number in range(len(shards)):
        if sum(map(len, parts)) >= KEPT:
            break
        parts.append(shards[number])
    _write(folder / REPLAY, join(parts), {})
    extra: dict[str, Tensor] = {}
    if quality is not None:
        extra["judged.statistics"] = statistics_of(samples.frames.flatten(0, 1)).unflatten(0, quality.shape)
        extra["judged.quality"] = quality
    _write(folder / HELDOUT, heldout, extra)


def open_kept(folder: Path) -> Kept:
    """Reads both files of a reward's folder.

    Raises:
        InputError: a file is missing or damaged; the message names it.
    """
    replay, _ = _read(folder / REPLAY)
    heldout, extra = _read(folder / HELDOUT)
    judged = None
    if extra:
        judged = Judged(extra["judged.statistics"].float(), extra["judged.quality"].double())
    if replay.statistics.shape[-1] != heldout.statistics.shape[-1]:
        raise InputError(f"{folder / FOLDER}: its files hold different numbers of statistics")
    return Kept(replay, heldout, judged)


def _write(path: Path, ladders: Ladders, extra: dict[str, Tensor]) -> None:
    small = {name: getattr(ladders, name).half() for name in TENSORS if name != "frames"}
    halves = {name: value.half() for name, value in extra.items()}
    write_ladders(path, replace(ladders.without_frames(), **small), halves)
    # Equal ladders are equal files.
    sort_safetensors_header(path)


def _read(path: Path) -> tuple[Ladders, dict[str, Tensor]]:
    ladders, extra = read_ladders(path, "not the ladders that a reward keeps for its refresh")
    full = {name: getattr(ladders, name).float() for name in TENSORS if name != "frames"}
    return replace(ladders, **full), extra
