"""What a reward keeps of its own making, so that it can be trained further where its material is not at hand.

Two small files in the folder `refresh/` of its artifact: some of the ladders it was trained on (so that
nothing is forgotten), and those its card was measured on (so that a new version can be measured). Only
statistics, levels and labels, as float16; no pictures, a few megabytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from components.reward.features.handcrafted import clip_statistics
from components.reward.ladders.batches import Shards
from components.reward.ladders.ladder import CHUNK, NAMES, TENSORS, Ladders, join
from components.reward.ladders.sources import Groups
from components.runtime.errors import InputError, one_line
from components.runtime.io.files import sort_safetensors_header

FOLDER = "refresh"
REPLAY = f"{FOLDER}/replay.safetensors"
HELDOUT = f"{FOLDER}/heldout.safetensors"
KEPT = 1024
"""Training ladders kept. Every shard is a mix of all sources, so the first ones are too."""


@dataclass(frozen=True)
class Judged:
    """A generator's samples that an independent judge has seen.

    Attributes:
        statistics: (P, N, F) float32, N samples for each of P prompts.
        quality: (P, N) float64, the judge's verdicts.
    """

    statistics: Tensor
    quality: Tensor


@dataclass(frozen=True)
class Kept:
    """What `keep` has put by, read back.

    Attributes:
        replay: training ladders.
        heldout: held-out ladders of all six levels.
        judged: None where no judge can read the samples.
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
        quality: (P, N) verdicts of the independent judge on the samples, None where there is no judge.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    parts: list[Ladders] = []
    for number in range(len(shards)):
        if sum(map(len, parts)) >= KEPT:
            break
        parts.append(shards.load(number))
    _write(folder / REPLAY, join(parts), {})
    extra = {}
    if quality is not None:
        flat = samples.frames.flatten(0, 1)
        found = [clip_statistics(flat[i : i + CHUNK].float() / 255.0) for i in range(0, len(flat), CHUNK)]
        extra["judged.statistics"] = torch.cat(found).unflatten(0, quality.shape)
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
    table = {name: getattr(ladders.without_frames(), name) for name in TENSORS if name != "frames"}
    table |= extra
    about = {name: json.dumps(getattr(ladders, name)) for name in NAMES}
    save_file({name: value.half().contiguous() for name, value in table.items()}, path, about)
    # Equal ladders are equal files.
    sort_safetensors_header(path)


def _read(path: Path) -> tuple[Ladders, dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as opened:
            table = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
            about: dict[str, Any] = {name: json.loads(opened.metadata()[name]) for name in NAMES}
        about["recipes"] = [tuple(recipe) for recipe in about["recipes"]]
        parts: dict[str, Any] = {name: table.pop(name).float() for name in TENSORS if name != "frames"}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = one_line(error)
        raise InputError(f"{path}: not the ladders that a reward keeps for its refresh ({reason})") from error
    parts["frames"] = torch.zeros((*parts["levels"].shape, 0), dtype=torch.uint8)
    return Ladders(**parts, **about), table
