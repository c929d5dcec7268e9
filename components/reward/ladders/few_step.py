"""Ladders that the generator draws itself: its own sample, and the same in fewer and fewer steps.

The order is known without a label, and the faults are those that a policy makes. They are drawn once before
training, into a file that appears in one rename, so that a resumed run does not draw them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from components.reward.distortions import GENERATIVE, LEVELS
from components.reward.ladders.ladder import levels_of
from components.reward.ladders.sources import Pool, SourceClips, StoredClips
from components.runtime.compute.seeds import derive
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file
from components.runtime.progress import Progress
from components.video.clip import ClipFormat

if TYPE_CHECKING:
    from components.generator.generator import Generator

#: The ladder of `GENERATIVE` that is trained on. `noisy_weights` is not, so that its attack stays unseen.
NAME = "few_steps"
#: Prompts drawn at once between two looks at a request to stop.
BLOCK = 8


def draw(
    generator: Generator | None,
    prompts: Sequence[str],
    count: int,
    length: int,
    geometry: ClipFormat,
    seed: int,
    file: Path,
    stop: StopSignal,
) -> Pool:
    """Draws `count` ladders of `length` clips, taking turns over the prompts; reads them if they are there.

    Args:
        generator: None where another process has drawn them.
        geometry: what the clips are brought to when they are read.
        file: where they are kept; its folder need not exist.

    Raises:
        InputError: no prompts, or the file holds something else.
        Interrupted: a stop was asked for.
    """
    if not prompts:
        raise InputError(
            f"reward.ladders.few_steps = {count}: the texts of the generator's prompts are not known; "
            "set it to 0"
        )
    seed = derive(seed, "drawn ladders", NAME)
    texts = [prompts[number % len(prompts)] for number in range(count)]
    levels = torch.tensor([levels_of(number, length, seed) for number in range(count)])
    if generator is not None and not file.is_file():
        _draw(generator, texts, levels, seed, file, stop)
    try:
        with safe_open(file, "pt") as opened:
            shape = tuple(opened.get_slice("frames").get_shape())
    except (SafetensorError, OSError, KeyError) as error:
        raise InputError(f"{file}: not the ladders that the generator drew ({error}); remove it") from error
    if shape[:2] != (count, length):
        raise InputError(f"{file}: ladders {shape[:2]}, expected {(count, length)}; remove it")
    clips = StoredClips(file, "frames", range(count * length), geometry)
    return Pool(NAME, SourceClips(clips, texts), count, labelled=False, levels=levels)


def _draw(
    generator: Generator, texts: list[str], levels: Tensor, seed: int, file: Path, stop: StopSignal
) -> None:
    table: Tensor | None = None
    with Progress(levels.numel(), "reward: samples in few steps") as progress:
        for level in range(LEVELS + 1):
            rows, places = (levels == level).nonzero(as_tuple=True)
            for start in range(0, len(rows), BLOCK):
                stop.raise_if_requested()
                at, place = rows[start : start + BLOCK], places[start : start + BLOCK]
                seeds = [derive(seed, "noise", int(row)) for row in at]
                clips = GENERATIVE[NAME].build(generator, [texts[int(row)] for row in at], level, seeds)
                if table is None:
                    table = torch.empty((*levels.shape, *clips.shape[1:]), dtype=torch.uint8)
                table[at, place] = clips
                progress.update(len(at))
    assert table is not None
    with atomic_file(file) as aside:
        save_file({"frames": table}, aside)
