"""The catalogue of distortions for people: a table, and a sheet that shows every one at all levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from components.corpus.dataset import SOURCES
from components.reward.distortions import FAMILIES, GENERATIVE, LEVELS, REGISTRY
from components.reward.distortions.base import CatalogueEntry, Distortion
from components.runtime.errors import InputError
from components.video.filters import luma, resize

if TYPE_CHECKING:
    from components.corpus.dataset import Corpus
    from components.generator.generator import Generator

NEEDS = {"": "", "vae": " (needs the generator's VAE)", "sampler": " (needs the generator)"}

#: Height in px of a frame on the sheet, and of the time slice under it.
FRAME, SLICE = 72, 27
GAP, MARGIN = 3, 14
#: Ladders beside each other.
BLOCKS = 2
#: Width in px of a ladder's label.
LABEL = 192
PAPER, INK, FAINT = (250, 250, 250), (30, 30, 30), (110, 110, 110)
#: How many times more a ladder must show on another clip to be shown there.
CLEARLY_MORE = 1.5
#: Share of the clips of a source that move less than the one shown.
LIVELY = 0.75

#: A ladder as it is drawn: what it is, and uint8 clips (T, 3, H, W) of level 0 upwards.
Row = tuple[CatalogueEntry, Sequence[Tensor]]


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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


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
        An RGB picture, families one under the other.
    """
    pixels = clips.float() / 255.0
    blocks: dict[str, list[Row]] = {}
    for family in FAMILIES:
        for entry in entries(family):
            rows = blocks.setdefault(family, [])
            if isinstance(entry, Distortion):
                rows.append((entry, _levels(entry, pixels, level, seed)))
            elif generated is not None and entry.name in generated:
                rows.append((entry, generated[entry.name][: level + 1]))
    seconds = clips.shape[1] / fps
    title = (
        f"Distortions on {', '.join(names)}: the original, then levels 1 to {level}; under each frame "
        f"one line of the picture over {seconds:.3g} s, time running down"
    )
    return _drawn(blocks, title, level)


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
    return [(at[clip] * 255.0).round().to(torch.uint8) for at in levels]


def _drawn(blocks: Mapping[str, Sequence[Row]], title: str, level: int) -> Image.Image:
    """Families one under the other, their ladders in columns."""
    shapes = [clips[0].shape for rows in blocks.values() for _, clips in rows]
    wide = max(round(FRAME * shape[3] / shape[2]) for shape in shapes)
    block = LABEL + (level + 1) * (wide + GAP)
    line = FRAME + 1 + SLICE + 2 * GAP
    small, heading = ImageFont.load_default(11), ImageFont.load_default(17)
    lines = sum(-(-len(rows) // BLOCKS) for rows in blocks.values())
    width = 2 * MARGIN + BLOCKS * block + (BLOCKS - 1) * MARGIN
    picture = Image.new("RGB", (width, 2 * MARGIN + 20 + lines * line + len(blocks) * 34), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=small)
    y = MARGIN + 20
    for family, rows in blocks.items():
        draw.text((MARGIN, y + 8), f"{family} ({len(rows)})", fill=INK, font=heading)
        y += 34
        for number, (entry, clips) in enumerate(rows):
            x = MARGIN + (number % BLOCKS) * (block + MARGIN)
            _label(draw, entry, (x, y))
            for place, cell in enumerate(_cells(clips, wide)):
                picture.paste(cell, (x + LABEL + place * (wide + GAP), y))
            if number % BLOCKS == BLOCKS - 1 or number == len(rows) - 1:
                y += line
    # Six bits a channel look the same and are a quarter less to store.
    return picture.point(lambda value: value & 0xFC | value >> 6)


def _label(draw: ImageDraw.ImageDraw, entry: CatalogueEntry, at: tuple[int, int]) -> None:
    """Name, what it does, levels and unit, broken to the label's width."""
    x, y = at
    small, plain = ImageFont.load_default(11), ImageFont.load_default(14)
    draw.text((x, y), entry.name, fill=INK, font=plain)
    texts = ((entry.summary, INK), (f"{_numbers(entry.levels, ', ')} {entry.unit}", FAINT))
    lines = [(line, colour) for text, colour in texts for line in _wrapped(draw, text, small, LABEL - 8)]
    for number, (line, colour) in enumerate(lines[:6]):
        draw.text((x, y + 18 + 13 * number), line, fill=colour, font=small)


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


def _cells(levels: Sequence[Tensor], wide: int) -> list[Image.Image]:
    """One picture a level: a late frame over a time slice of the line in which the original moves most."""
    moved = luma(levels[0].float()).std(dim=0)
    frame = round(0.7 * (len(levels[0]) - 1))
    rows, columns = moved.mean(dim=1), moved.mean(dim=0)
    cells = []
    for clip in levels:
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
