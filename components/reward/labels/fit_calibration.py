"""Fits the numbers of `calibration.CALIBRATION`; run by hand, and only when a measure changes.

    python -m components.reward.labels.fit_calibration --corpus artifacts/corpus

prints the calibration from ladders of every distortion on the corpus's training clips. Paste it into
`calibration.py` together with a new `VERSION`; nothing is fitted when labels are made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from components.corpus.dataset import SOURCES, Corpus
from components.reward.distortions import LEVELS, REGISTRY
from components.reward.labels.calibration import Calibration
from components.reward.labels.label import measured
from components.reward.labels.losses import MEASURES
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.seeds import derive, torch_generator
from components.runtime.errors import InputError
from components.runtime.progress import Progress
from components.runtime.step import main
from components.video.filters import to_float, to_uint8

#: Share of values that a change just too small to be seen moves by one 8-bit step (0.3 / 255 = SEEN).
FLIPPED = 0.3


def pick(corpus: Corpus, split: str, source: str, clips: int) -> tuple[Tensor, list[str]]:
    """uint8 clips of a split and their contents: as many contents as there are, in turn."""
    frames, records = corpus.clips(split, source)
    turns: dict[str, int] = {}
    order = []
    for place, record in enumerate(records):
        turns[record.content] = turns.get(record.content, -1) + 1
        order.append((turns[record.content], place))
    chosen = [place for _, place in sorted(order)[:clips]]
    return frames[chosen], [records[place].content for place in chosen]


def measure_ladders(
    corpus: Corpus, split: str, clips: int, seed: int, cache: Path | None, workers: int
) -> tuple[Tensor, Tensor]:
    """Measures every registered distortion at every level on `clips` clips of each source.

    Returns:
        Losses (types, clips, levels 1..5, 4) of the ladders, and (clips, 4) of a change just too small to be
        seen.

    Raises:
        InputError: the split has no clips.
    """
    picked = [pick(corpus, split, source, clips) for source in SOURCES]
    frames = torch.cat([part for part, _ in picked])
    contents = [name for _, names in picked for name in names]
    if not contents:
        raise InputError(f"{corpus.artifact.path}: no clips in the {split} split to calibrate labels on")
    flips = torch.rand(frames.shape, generator=torch_generator(seed, "flips")) < FLIPPED
    signs = 1 - 2 * torch.randint(0, 2, frames.shape, generator=torch_generator(seed, "signs"))
    unseen = (frames.int() + flips * signs).clamp(0, 255).to(torch.uint8)
    table = []
    with ProcessPool(workers) as pool, Progress(len(REGISTRY), "labels: distortions measured") as progress:
        hidden = measured(frames, unseen[:, None], cache=cache, pool=pool)[:, 0]
        for ladder in _ladders(frames, contents, seed):
            table.append(measured(frames, ladder, cache=cache, pool=pool))
            progress.update(1)
    return torch.stack(table), hidden


def _ladders(frames: Tensor, contents: list[str], seed: int) -> Iterator[Tensor]:
    seeds = [derive(seed, content, row) for row, content in enumerate(contents)]
    for damage in REGISTRY.values():
        levels = [damage(to_float(frames), level, seeds) for level in range(1, LEVELS + 1)]
        yield to_uint8(torch.stack(levels, dim=1))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def fit(
    corpus: Annotated[
        str, typer.Option("--corpus", help="a corpus: folder or s3:// URI")
    ] = "artifacts/corpus",
    clips: Annotated[int, typer.Option("--clips", min=2, help="training clips of each source")] = 16,
    cache: Annotated[Path | None, typer.Option("--cache", help="folder of losses measured before")] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="processes that measure")] = 0,
) -> None:
    """Print the calibration of the labels that a corpus's training clips give, as JSON."""
    losses, unseen = measure_ladders(Corpus.open(corpus), "train", clips, 0, cache, workers)
    fitted = Calibration.fit(losses.flatten(0, 2), unseen.mean(0).tolist())
    print(json.dumps({"measures": MEASURES, **asdict(fitted)}, indent=2))


if __name__ == "__main__":
    main(app)
