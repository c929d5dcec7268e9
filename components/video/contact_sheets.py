"""Pictures of clips for people: a contact sheet (rows of frames) and clips side by side in one video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from components.video.clip import Clip
from components.video.fonts import label
from components.video.resample import resize

BACKGROUND = (250, 250, 250)
INK = (30, 30, 30)
GAP = 4
MARGIN = 12
LABEL_PIXELS = 14


def contact_sheet(
    clips: Sequence[Clip],
    labels: Sequence[str],
    columns: int | None = None,
    *,
    title: str = "",
    cell: int = 96,
) -> Image.Image:
    """One row a clip: its label, then frames spread evenly over its length.

    Args:
        clips: any sizes and lengths.
        labels: one a clip; a newline breaks the line.
        columns: frames shown of each clip; None shows all, up to 12.
        title: a line above the rows.
        cell: height of a frame in pixels; small clips are enlarged with hard pixels.
    """
    if len(clips) != len(labels) or not clips:
        raise ValueError(f"one label for each of at least one clip, got {len(clips)} and {len(labels)}")
    written = [label(text, LABEL_PIXELS) for text in labels]
    sizes = [_text_size(text, font) for text, font in written]
    title, heading = label(title, LABEL_PIXELS + 4)
    rows = [_row_of_frames(clip, columns or min(12, clip.num_frames), cell) for clip in clips]
    gutter = max(size[0] for size in sizes) + 2 * GAP
    top = MARGIN + (_text_size(title, heading)[1] + MARGIN if title else 0)
    needed = [max(cell, size[1]) + GAP for size in sizes]
    width = MARGIN + gutter + max(row.width for row in rows) + MARGIN
    sheet = Image.new(
        "RGB",
        (max(width, _text_size(title, heading)[0] + 2 * MARGIN), top + sum(needed) + MARGIN),
        BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=heading)
    y = top
    for row, (text, font), size, height in zip(rows, written, sizes, needed, strict=True):
        sheet.paste(row, (MARGIN + gutter, y))
        draw.multiline_text((MARGIN, y + (cell - size[1]) // 2 - 2), text, fill=INK, font=font)
        y += height
    return sheet


def side_by_side(clips: Sequence[Clip], labels: Sequence[str], *, height: int = 240) -> Clip:
    """Clips next to each other with a label above each, as one uint8 clip at the first one's rate.

    Each is scaled to `height` pixels (hard pixels when enlarged by a whole factor); a shorter one holds its
    last frame.
    """
    if len(clips) != len(labels) or not clips:
        raise ValueError(f"one label for each of at least one clip, got {len(clips)} and {len(labels)}")
    length = max(clip.num_frames for clip in clips)
    panels = []
    for clip, text in zip(clips, labels, strict=True):
        frames = _enlarged(clip, height).as_uint8().frames
        held = frames[-1:].expand(length - clip.num_frames, -1, -1, -1)
        body = torch.cat([frames, held])
        bar = _label_bar(text, body.shape[3]).expand(length, -1, -1, -1)
        panels.append(F.pad(torch.cat([bar, body], dim=2), (GAP // 2, GAP // 2), value=BACKGROUND[0]))
    return Clip(torch.cat(panels, dim=3).contiguous(), clips[0].fps)


def _row_of_frames(clip: Clip, count: int, cell: int) -> Image.Image:
    index = torch.linspace(0, clip.num_frames - 1, count).round().long()
    frames = _enlarged(clip.with_frames(clip.frames[index]), cell).as_uint8().frames
    width = frames.shape[3]
    row = Image.new("RGB", (count * (width + GAP) - GAP, cell), BACKGROUND)
    for column, frame in enumerate(frames):
        row.paste(_picture(frame), (column * (width + GAP), 0))
    return row


def _enlarged(clip: Clip, height: int) -> Clip:
    factor = height / clip.height
    if factor == int(factor):
        frames = clip.frames.repeat_interleave(int(factor), dim=2).repeat_interleave(int(factor), dim=3)
        return clip.with_frames(frames)
    return resize(clip, (height, max(1, round(clip.width * factor))))


def _label_bar(text: str, width: int) -> Tensor:
    written, font = label(text, LABEL_PIXELS)
    while written and _text_size(written, font)[0] > width and len(written) > 4:
        written = written[:-4] + "..."
    bar = Image.new("RGB", (width, 2 * LABEL_PIXELS), BACKGROUND)
    ImageDraw.Draw(bar).text((2, LABEL_PIXELS // 3), written, fill=INK, font=font)
    return torch.from_numpy(np.asarray(bar).copy()).permute(2, 0, 1)[None]


def _picture(frame: Tensor) -> Image.Image:
    return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())


def _text_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    if not text:
        return 0, 0
    left, _, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox(
        (0, 0), text, font=font
    )
    return int(right - left) + 1, int(bottom) + 1
