"""Fragments: exact source pixels, each inside its own cell, at places fixed by the seed alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from components.reward.features.fragments import Canvas, fragments, frame_numbers

SQUARE = Canvas(32, 32, (8, 8), frames=4, exact=False)


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def bounds(side: int, patch: int) -> list[int]:
    """Where fragments begin on the canvas, and where the last ends: whole patches, in pairs as far as it
    goes."""
    patches = side // patch
    cells = max(1, patches // 2)
    return [i * patches // cells * patch for i in range(cells + 1)]


def centred(clips: Tensor, canvas: Canvas) -> Tensor:
    """What `fragments` without seeds says, cell by cell and frame by frame."""
    batch, time, _, height, width = clips.shape
    rows, columns = bounds(canvas.height, canvas.patch[0]), bounds(canvas.width, canvas.patch[1])
    out = torch.zeros(batch, time, 3, canvas.height, canvas.width)
    for b in range(batch):
        for t in range(time):
            for top, bottom in pairwise(rows):
                for left, right in pairwise(columns):
                    cell_top, cell_bottom = height * top // rows[-1], height * bottom // rows[-1]
                    cell_left, cell_right = width * left // columns[-1], width * right // columns[-1]
                    y = cell_top + (cell_bottom - cell_top - (bottom - top) + 1) // 2
                    x = cell_left + (cell_right - cell_left - (right - left) + 1) // 2
                    piece = clips[b, t, :, y : y + bottom - top, x : x + right - left]
                    out[b, t, :, top:bottom, left:right] = piece.float() / 255.0
    return out


@pytest.mark.parametrize(
    ("canvas", "height", "width"),
    [
        (SQUARE, 70, 93),
        (SQUARE, 32, 128),
        (Canvas(28, 36, (4, 4), 4, exact=False), 50, 41),  # 7 patches: fragments of 2, 2 and 3
        (Canvas(30, 30, (4, 4), 4, exact=False), 64, 64),  # the last 2 px fill no patch
        (Canvas(32, 32, (32, 32), 4, exact=False), 64, 64),  # one fragment
    ],
)
def test_as_the_loop_over_cells_says(canvas: Canvas, height: int, width: int) -> None:
    clips = noise(2, 4, 3, height, width)
    assert torch.equal(fragments(clips, canvas), centred(clips, canvas))


def test_a_drawn_fragment_is_source_pixels_of_its_cell_in_all_frames() -> None:
    clips = noise(3, 4, 3, 71, 90)
    out = fragments(clips, SQUARE, seeds=[4, 5, 6])
    found = []
    for b in range(3):
        for i in range(2):
            for j in range(2):
                piece = out[b, :, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
                cell = clips[b, :, :, 71 * i // 2 : 71 * (i + 1) // 2, 45 * j : 45 * (j + 1)].float() / 255
                places = [
                    (y, x)
                    for y in range(cell.shape[-2] - 15)
                    for x in range(cell.shape[-1] - 15)
                    if torch.equal(cell[..., y : y + 16, x : x + 16], piece)
                ]
                assert len(places) == 1
                found.append(places[0])
    assert len(set(found)) > 8  # cells and clips have places of their own


def test_every_place_in_a_cell_is_drawn() -> None:
    canvas = Canvas(4, 4, (4, 4), 1, exact=False)
    clip = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 1, 6, 6).expand(1, 1, 3, 6, 6)
    corners = {round(float(fragments(clip, canvas, [seed])[0, 0, 0, 0, 0]) * 255.0) for seed in range(200)}
    assert corners == {6 * y + x for y in range(3) for x in range(3)}


def test_places_depend_on_the_seed_alone() -> None:
    clips = noise(3, 4, 3, 64, 64)
    out = fragments(clips, SQUARE, [7, 8, 9])
    assert torch.equal(fragments(clips[1:2], SQUARE, [8])[0], out[1])
    same = fragments(clips[:1].expand(2, -1, -1, -1, -1), SQUARE, [7, 8])
    assert not torch.equal(same[0], same[1])


def test_a_clip_of_the_canvas_size_stays_as_it_is() -> None:
    clips = noise(2, 3, 3, 32, 32)
    for seeds in (None, [1, 2]):
        assert torch.equal(fragments(clips, SQUARE, seeds), clips.float() / 255.0)
    floats = clips.float() / 255.0
    assert torch.equal(fragments(floats, SQUARE), floats)


def test_a_smaller_clip_is_enlarged_until_it_covers_the_canvas() -> None:
    clips = noise(1, 2, 3, 16, 16)
    wide = F.interpolate(clips[0].float() / 255.0, size=(32, 32), mode="bilinear", align_corners=False)
    assert torch.allclose(fragments(clips, SQUARE)[0], wide, atol=1e-6)
    # 16 x 24 becomes 32 x 48: all rows, and two pieces of 16 of the 48 columns.
    clips = noise(1, 2, 3, 16, 24)
    wide = F.interpolate(clips[0].float() / 255.0, size=(32, 48), mode="bilinear", align_corners=False)
    expected = torch.cat((wide[..., 4:20], wide[..., 28:44]), dim=-1)
    assert torch.allclose(fragments(clips, SQUARE)[0], expected, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 5, 8, 15, 16, 17, 33, 100])
def test_frames_are_the_nearest_of_evenly_spaced_times(frames: int) -> None:
    exact = Canvas(8, 8, (8, 8), frames=16, exact=True)
    picked = frame_numbers(frames, exact)
    times = np.linspace(0, frames - 1, 16)
    assert len(picked) == 16 and picked[0] == 0 and picked[-1] == frames - 1
    assert np.abs(np.array(picked) - times).max() <= 0.5 + 1e-9
    loose = Canvas(8, 8, (8, 8), frames=16, exact=False)
    assert frame_numbers(frames, loose) == (list(range(frames)) if frames <= 16 else picked)


def test_repeated_frames_come_about_equally_often() -> None:
    assert frame_numbers(8, Canvas(8, 8, (8, 8), 16, exact=True)) == [i // 2 for i in range(16)]
    assert frame_numbers(9, Canvas(8, 8, (8, 8), 1, exact=True)) == [4]
    clips = noise(1, 2, 3, 32, 32)
    out = fragments(clips, Canvas(32, 32, (8, 8), 4, exact=True))
    assert torch.equal(out, (clips.float() / 255.0)[:, [0, 0, 1, 1]])
