"""Fragments: a clip brought to a backbone's input size without shrinking it.

The frame is cut into a grid of cells, one piece is taken out of each at the clip's own resolution, and the
pieces are laid side by side (FAST-VQA, ECCV 2022). Shrinking would average away the very noise, ringing and
blocking that a quality score is about; pieces keep them, and the grid keeps the rough layout. The pieces lie
at the same places in all frames of a clip, so that motion inside a piece stays motion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from components.runtime.compute.seeds import torch_generator
from components.video.filters import resize, to_float

#: Patches of the backbone in a fragment, each way: none then shows two places, and most of FAST-VQA's 32 px
#: remain.
PATCHES = 2


@dataclass(frozen=True)
class Canvas:
    """What a backbone reads.

    Attributes:
        height, width: px of a frame.
        patch: height and width in px of the patches it cuts a frame into.
        frames: frames of a clip, at most.
        exact: whether it reads no fewer frames either.
    """

    height: int
    width: int
    patch: tuple[int, int]
    frames: int
    exact: bool

    @property
    def rows(self) -> list[int]:
        """First rows of the fragments, and the end of the last: a multiple of the patch, at most `height`."""
        return _edges(self.height, self.patch[0])

    @property
    def columns(self) -> list[int]:
        """First columns of the fragments, and the end of the last."""
        return _edges(self.width, self.patch[1])


def fragments(clips: Tensor, canvas: Canvas, seeds: Sequence[int] | None = None) -> Tensor:
    """Clips at a backbone's input size.

    A cell is what a fragment would cover if the whole frame were stretched to the canvas. A clip smaller than
    the canvas is enlarged first (bilinear, aspect kept, until it covers the canvas): every cell then holds a
    fragment. A clip of exactly the canvas's size comes back as it is.

    Args:
        clips: (B, T, 3, H, W), uint8 or float 0..1.
        seeds: B of them, which place the fragments at random in their cells; None puts each in the middle of
            its cell, so that the result is a function of the clip alone.

    Returns:
        float32 0..1, (B, frames, 3, height, width), frames as `frame_numbers` picks them.
    """
    clips = clips[:, frame_numbers(clips.shape[1], canvas)]
    rows, columns = canvas.rows, canvas.columns
    clips = _covering(clips, rows[-1], columns[-1])
    count, height, width = clips.shape[0], clips.shape[-2], clips.shape[-1]
    shift = _shifts(count, len(rows) - 1, len(columns) - 1, seeds)
    # Where each fragment begins in its clip, (B, cells down, cells across).
    top = _starts(height, rows, shift[:, 0].mT).mT
    left = _starts(width, columns, shift[:, 1])
    # The same for each pixel of the canvas, and how far inside its fragment the pixel lies.
    cell_down, inside_down = _places(rows)
    cell_across, inside_across = _places(columns)
    y = top[:, cell_down][:, :, cell_across] + inside_down[:, None]
    x = left[:, cell_down][:, :, cell_across] + inside_across
    index = (y * width + x).reshape(count, 1, -1).to(clips.device)
    flat = clips.reshape(count, -1, height * width)
    pieces = flat.gather(2, index.expand(-1, flat.shape[1], -1))
    pieces = pieces.reshape(*clips.shape[:3], rows[-1], columns[-1])
    # Rows that fill no patch: the backbone does not read them either.
    missing = (0, canvas.width - columns[-1], 0, canvas.height - rows[-1])
    return F.pad(to_float(pieces), missing) if any(missing) else to_float(pieces)


def frame_numbers(frames: int, canvas: Canvas) -> list[int]:
    """Which of a clip's `frames` frames a backbone reads.

    Longer clips are sampled evenly from the first frame to the last. Shorter ones are read whole, and where
    the backbone needs its exact number each frame is repeated about equally often.
    """
    count = canvas.frames if canvas.exact else min(frames, canvas.frames)
    if count == 1:
        return [(frames - 1) // 2]
    # The nearest frame to each of `count` evenly spaced times, in whole numbers.
    return [(2 * i * (frames - 1) + count - 1) // (2 * (count - 1)) for i in range(count)]


def _edges(side: int, patch: int) -> list[int]:
    """Bounds of fragments of PATCHES patches (one more where they do not come out even) inside `side` px."""
    patches = side // patch
    cells = max(1, patches // PATCHES)
    return [patch * (patches * i // cells) for i in range(cells + 1)]


def _starts(side: int, edges: list[int], shares: Tensor) -> Tensor:
    """Where each fragment begins on a side of the frame; (..., cells) shares of the spare px of its cell."""
    bounds = torch.tensor([side * edge // edges[-1] for edge in edges])
    spare = bounds.diff() - torch.tensor(edges).diff()
    return bounds[:-1] + (shares * (spare + 1)).long().minimum(spare)


def _places(edges: list[int]) -> tuple[Tensor, Tensor]:
    """The fragment of each px along one side of the canvas, and its place in there."""
    bounds = torch.tensor(edges)
    pixels = torch.arange(edges[-1])
    cell = torch.bucketize(pixels, bounds[1:], right=True)
    return cell, pixels - bounds[cell]


def _shifts(count: int, down: int, across: int, seeds: Sequence[int] | None) -> Tensor:
    """(B, 2, down, across) shares in 0..1 of the spare height and width of each cell."""
    if seeds is None:
        return torch.full((count, 2, down, across), 0.5)
    return torch.stack(
        [torch.rand(2, down, across, generator=torch_generator(seed, "fragments")) for seed in seeds]
    )


def _covering(clips: Tensor, height: int, width: int) -> Tensor:
    """The clips, enlarged where they do not cover height x width px."""
    tall, wide = clips.shape[-2:]
    scale = max(height / tall, width / wide)
    if scale <= 1.0:
        return clips
    size = max(height, round(tall * scale)), max(width, round(wide * scale))
    return resize(to_float(clips), *size, "bilinear").clamp(0.0, 1.0)
