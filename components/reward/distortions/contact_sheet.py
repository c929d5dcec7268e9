"""The catalogue of distortions for people: a table, and a sheet that shows every one at all levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from components.reward.distortions import CONTROLS, FAMILIES, GENERATIVE, LEVELS, REGISTRY
from components.reward.distortions.base import Distortion
from components.reward.distortions.generator_made import GenerativeLadder
from components.runtime.errors import InputError
from components.video.filters import luma, resize

if TYPE_CHECKING:
    from components.corpus.dataset import Corpus
    from components.generator.generator import Generator

NEEDS = {"": "", "vae": " (needs the generator's VAE)", "sampler": " (needs the generator)"}

FRAME = 72
"""Height of a frame on the sheet, px."""
SLICE = 27
"""Height of the time slice under it."""
GAP = 3
MARGIN = 14
BLOCKS = 2
"""Ladders beside each other."""
LABEL = 192
"""Width of a ladder's label."""
PAPER, INK, FAINT = (250, 250, 250), (30, 30, 30), (110, 110, 110)
CLEARLY_MORE = 1.5
"""How many times more a ladder must show on another clip to be shown there."""
LIVELY = 0.75
"""Clips are shown that move more than this share of their kind."""


def entries(family: str) -> list[Distortion | GenerativeLadder]:
    """Every ladder of a family, those that need a generator last."""
    every: list[Distortion | GenerativeLadder] = [*REGISTRY.values(), *GENERATIVE.values()]
    return [entry for entry in every if entry.family == family]


def table() -> list[str]:
    """One line a ladder: family, name, the five levels with their unit, what it does; then the controls."""
    rows: list[tuple[str, ...]] = [
        (entry.family, entry.name, _numbers(entry.levels), entry.unit, entry.summary + NEEDS[entry.needs])
        for family in FAMILIES
        for entry in entries(family)
    ]
    rows += [("(control)", c.name, _numbers(c.values), c.unit, c.summary) for c in CONTROLS.values()]
    head = ("family", "name", "levels 1-5", "unit", "what it does")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in [head, *rows]
    ]


@dataclass(frozen=True)
class Row:
    """One ladder as it is drawn: what it is, and uint8 clips (T, 3, H, W) of level 0 upwards."""

    entry: Distortion | GenerativeLadder
    rungs: list[Tensor]


def examples(corpus: Corpus) -> tuple[Tensor, list[str]]:
    """A lively held-out clip of each source: uint8 (N, T, 3, H, W) and what they show.

    Raises:
        InputError: the corpus has no held-out clips.
    """
    found = {source: corpus.clips("test", source) for source in ("world", "footage")}
    clips, names = [], []
    for frames, records in found.values():
        if records:
            moved = frames.float().diff(dim=1).abs().mean(dim=(1, 2, 3, 4))
            shown = int(moved.argsort(stable=True)[int(LIVELY * len(records))])
            clips.append(frames[shown])
            names.append(records[shown].content)
    if not clips:
        raise InputError(f"{corpus.artifact.path}: no test clips to show")
    return torch.stack(clips), names


def generated_rungs(
    generator: Generator, clip: Tensor, prompt: str, level: int = LEVELS, seed: int = 0
) -> dict[str, list[Tensor]]:
    """What `sheet` shows of the ladders that need a generator.

    Args:
        clip: uint8 (T, 3, H, W), for the VAE.
        prompt: for the sampler.
    """
    return {
        name: [
            ladder.build(generator, clip[None] if ladder.needs == "vae" else [prompt], rung, [seed])[0]
            for rung in range(level + 1)
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
        An RGB picture, families one under the other.
    """
    pixels = clips.float() / 255.0
    blocks: dict[str, list[Row]] = {}
    for family in FAMILIES:
        found = blocks.setdefault(family, [])
        for entry in entries(family):
            if isinstance(entry, Distortion):
                found.append(Row(entry, _rungs(entry, pixels, level, seed)))
            elif generated is not None and entry.name in generated:
                found.append(Row(entry, list(generated[entry.name])[: level + 1]))
    seconds = clips.shape[1] / fps
    title = (
        f"Distortions on {', '.join(names)}: the original, then levels 1 to {level}; under each frame "
        f"one line of the picture over {seconds:.3g} s, time running down"
    )
    return _drawn(blocks, title, level)


def _rungs(entry: Distortion, pixels: Tensor, level: int, seed: int) -> list[Tensor]:
    """The ladder on the clip that suits its family, unless it shows clearly more on another."""
    seeds = [seed + i for i in range(len(pixels))]
    rungs = [entry(pixels, rung, seeds) for rung in range(level + 1)]
    # Against what each clip has to lose: damage to a small object on a plain ground is small in numbers.
    content = (pixels - pixels.mean(dim=(1, 3, 4), keepdim=True)).abs().mean(dim=(1, 2, 3, 4))
    changed = torch.stack([(rung - pixels).abs().mean(dim=(1, 2, 3, 4)) for rung in rungs]).mean(0)
    shows = changed / content.clamp_min(1e-3)
    # Pictures are damaged best where there is much to see, motion where there is little else.
    suits = len(pixels) - 1 if entry.family in ("spatial", "codec") else 0
    clip = suits if shows[suits] >= shows.max() / CLEARLY_MORE else int(shows.argmax())
    return [(rung[clip] * 255.0).round().to(torch.uint8) for rung in rungs]


def _drawn(blocks: Mapping[str, Sequence[Row]], title: str, level: int) -> Image.Image:
    """Families one under the other, their ladders in columns."""
    shapes = [row.rungs[0].shape for rows in blocks.values() for row in rows]
    wide = max(round(FRAME * shape[3] / shape[2]) for shape in shapes)
    block = LABEL + (level + 1) * (wide + GAP)
    line = FRAME + 1 + SLICE + 2 * GAP
    small, heading = ImageFont.load_default(11), ImageFont.load_default(17)
    lines = sum(-(-len(rows) // BLOCKS) for rows in blocks.values() if rows)
    heads = sum(bool(rows) for rows in blocks.values())
    width = 2 * MARGIN + BLOCKS * block + (BLOCKS - 1) * MARGIN
    picture = Image.new("RGB", (width, 2 * MARGIN + 20 + lines * line + heads * 34), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=small)
    y = MARGIN + 20
    for family, rows in blocks.items():
        if not rows:
            continue
        draw.text((MARGIN, y + 8), f"{family} ({len(rows)})", fill=INK, font=heading)
        y += 34
        for number, row in enumerate(rows):
            x = MARGIN + (number % BLOCKS) * (block + MARGIN)
            _label(draw, row.entry, (x, y))
            for place, cell in enumerate(_cells(row.rungs, wide)):
                picture.paste(cell, (x + LABEL + place * (wide + GAP), y))
            if number % BLOCKS == BLOCKS - 1 or number == len(rows) - 1:
                y += line
    # Six bits a channel look the same and are a quarter less to store.
    return picture.point(lambda value: value & 0xFC | value >> 6)


def _label(draw: ImageDraw.ImageDraw, entry: Distortion | GenerativeLadder, at: tuple[int, int]) -> None:
    """Name, what it does, levels and unit, broken to the label's width."""
    x, y = at
    small, plain = ImageFont.load_default(11), ImageFont.load_default(14)
    draw.text((x, y), entry.name, fill=INK, font=plain)
    y += 18
    about = f"{_numbers(entry.levels, ', ')} {entry.unit}"
    lines = [(part, FAINT) for part in _wrapped(draw, about, small, LABEL - 8)]
    lines = [(part, INK) for part in _wrapped(draw, entry.summary, small, LABEL - 8)] + lines
    for part, colour in lines[:6]:
        draw.text((x, y), part, fill=colour, font=small)
        y += 13


def _wrapped(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cells(rungs: Sequence[Tensor], wide: int) -> list[Image.Image]:
    """One picture a level: a late frame over a time slice of the line in which the original moves most."""
    moved = luma(rungs[0].float()).std(dim=0)
    frame = round(0.7 * (len(rungs[0]) - 1))
    rows, columns = moved.mean(dim=1), moved.mean(dim=0)
    cells = []
    for clip in rungs:
        if rows.max() >= columns.max():
            line = clip[:, :, int(rows.argmax())]
        else:
            line = clip[:, :, :, int(columns.argmax())]
        cell = Image.new("RGB", (wide, FRAME + 1 + SLICE), PAPER)
        cell.paste(_picture(clip[frame], FRAME, wide), (0, 0))
        cell.paste(_picture(line.transpose(0, 1), SLICE, wide), (0, FRAME + 1))
        cells.append(cell)
    return cells


def _picture(pixels: Tensor, height: int, width: int) -> Image.Image:
    """uint8 (3, H, W), enlarged with hard pixels, shrunk smoothly."""
    if pixels.shape[-2] > height or pixels.shape[-1] > width:
        pixels = resize(pixels.float(), height, width, "bilinear").round().clamp(0, 255).to(torch.uint8)
    shown = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    return shown.resize((width, height), Image.Resampling.NEAREST)


def _numbers(values: Sequence[float], between: str = " ") -> str:
    return between.join(f"{value:g}" for value in values)
