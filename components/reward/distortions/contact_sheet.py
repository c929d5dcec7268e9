"""The catalogue of distortions for people: a table, and a sheet that shows every one at all levels."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from components.corpus.dataset import SOURCES
from components.reward.distortions import FAMILIES, GENERATIVE, LEVELS, REGISTRY
from components.reward.distortions.base import CatalogueEntry, Distortion
from components.runtime.errors import InputError
from components.runtime.tables import columns
from components.video.clip import Clip
from components.video.contact_sheets import BACKGROUND, contact_sheet
from components.video.filters import luma, resize, to_float, to_uint8

if TYPE_CHECKING:
    from components.corpus.dataset import Corpus
    from components.generator.generator import Generator

NEEDS = {"": "", "vae": " (needs the generator's VAE)", "sampler": " (needs the generator)"}

#: Height in px of a frame on the sheet with the time slice under it; the slice's share of the frame's height.
CELL, SLICE = 96, 1 / 3
#: How many times more a ladder must show on another clip to be shown there.
CLEARLY_MORE = 1.5
#: Share of the clips of a source that move less than the one shown.
LIVELY = 0.75


def entries(family: str) -> list[CatalogueEntry]:
    """Every ladder of a family, those that need a generator last."""
    return [entry for entry in (*REGISTRY.values(), *GENERATIVE.values()) if entry.family == family]


def table() -> list[str]:
    """One line a ladder: family, name, the five levels with their unit, what it does."""
    rows = [("family", "name", "levels 1-5", "unit", "what it does")]
    for family in FAMILIES:
        for entry in entries(family):
            summary = entry.summary + NEEDS[entry.needs]
            rows.append((family, entry.name, _numbers(entry.levels), entry.unit, summary))
    return columns(rows, left=range(5))


def examples(corpus: Corpus) -> tuple[Tensor, list[str]]:
    """A lively held-out clip of each source: uint8 (N, T, 3, H, W) and what they show.

    Raises:
        InputError: the corpus has no held-out clips.
    """
    clips, names = [], []
    for source in SOURCES:
        frames, records = corpus.clips("test", source)
        if records:
            moved = frames.float().diff(dim=1).abs().mean(dim=(1, 2, 3, 4))
            shown = int(moved.argsort(stable=True)[int(LIVELY * len(records))])
            clips.append(frames[shown])
            names.append(records[shown].content)
    if not clips:
        raise InputError(f"{corpus.artifact.path}: no test clips to show")
    return torch.stack(clips), names


def generated_levels(
    generator: Generator, clip: Tensor, prompt: str, level: int = LEVELS, seed: int = 0
) -> dict[str, list[Tensor]]:
    """What `sheet` shows of the ladders that need a generator.

    Args:
        clip: uint8 (T, 3, H, W), for the VAE.
        prompt: for the sampler.
    """
    return {
        name: [
            ladder.build(generator, clip[None] if ladder.needs == "vae" else [prompt], at, [seed])[0]
            for at in range(level + 1)
        ]
        for name, ladder in GENERATIVE.items()
    }


def sheet(
    clips: Tensor,
    names: Sequence[str],
    level: int = LEVELS,
    fps: float = 8.0,
    seed: int = 0,
    generated: Mapping[str, Sequence[Tensor]] | None = None,
) -> Image.Image:
    """A picture of every ladder: for each level one frame and, under it, one line of the picture over time.

    Args:
        clips: uint8 (N, T, 3, H, W); each distortion is shown on the one on which it shows most.
        names: N names of the clips.
        level: the last level shown, 1 to 5.
        fps: frame rate of the clips.
        generated: for ladders that need a generator their uint8 clips (T, 3, H, W) of level 0 upwards, by
            name; without them such ladders are left out.

    Returns:
        An RGB picture, family after family.
    """
    pixels = to_float(clips)
    cells, labels = [], []
    for entry in (entry for family in FAMILIES for entry in entries(family)):
        if isinstance(entry, Distortion):
            shown = _levels(entry, pixels, level, seed)
        elif generated is not None and entry.name in generated:
            shown = list(generated[entry.name][: level + 1])
        else:
            continue
        cells.append(Clip(_cells(shown), 1.0))
        about = f"{entry.summary}. {_numbers(entry.levels, ', ')} {entry.unit}"
        labels.append("\n".join([f"{entry.family}: {entry.name}", *textwrap.wrap(about, 34)[:5]]))
    seconds = clips.shape[1] / fps
    titles = (
        f"Distortions on {', '.join(names)}: the original, then levels 1 to {level}",
        f"Under each frame: one line of the picture over {seconds:.3g} s, time running down",
    )
    half = -(-len(cells) // 2)
    left, right = (
        contact_sheet(cells[part], labels[part], level + 1, title=title, cell=CELL)
        for part, title in zip((slice(half), slice(half, None)), titles, strict=True)
    )
    picture = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), BACKGROUND)
    picture.paste(left, (0, 0))
    picture.paste(right, (left.width, 0))
    # Six bits a channel look the same and are a quarter less to store.
    return picture.point(lambda value: value & 0xFC | value >> 6)


def _levels(entry: Distortion, pixels: Tensor, level: int, seed: int) -> list[Tensor]:
    """The ladder on the clip that suits its family, unless it shows clearly more on another."""
    seeds = [seed + i for i in range(len(pixels))]
    levels = [entry(pixels, at, seeds) for at in range(level + 1)]
    # Against what each clip has to lose: damage to a small object on a plain ground is small in numbers.
    content = (pixels - pixels.mean(dim=(1, 3, 4), keepdim=True)).abs().mean(dim=(1, 2, 3, 4))
    changed = torch.stack([(at - pixels).abs().mean(dim=(1, 2, 3, 4)) for at in levels]).mean(0)
    shows = changed / content.clamp_min(1e-3)
    # Pictures are damaged best where there is much to see, motion where there is little else.
    suits = len(pixels) - 1 if entry.family in ("spatial", "codec") else 0
    clip = suits if shows[suits] >= shows.max() / CLEARLY_MORE else int(shows.argmax())
    return [to_uint8(at[clip]) for at in levels]


def _cells(levels: Sequence[Tensor]) -> Tensor:
    """uint8 (levels, 3, H', W): a late frame over a time slice of the line where the original moves most."""
    moved = luma(levels[0].float()).std(dim=0)
    rows, columns = moved.mean(dim=1), moved.mean(dim=0)
    height, width = moved.shape
    cells = []
    for clip in levels:
        line = clip[:, :, rows.argmax()] if rows.max() >= columns.max() else clip[..., columns.argmax()]
        time_slice = resize(line.transpose(0, 1).float(), round(SLICE * height), width, "nearest")
        cells.append(torch.cat((clip[round(0.7 * (len(clip) - 1))], time_slice.to(torch.uint8)), dim=1))
    return torch.stack(cells)


def _numbers(values: Sequence[float], between: str = " ") -> str:
    return between.join(f"{value:g}" for value in values)
