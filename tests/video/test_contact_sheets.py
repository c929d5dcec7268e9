from __future__ import annotations

import numpy as np
import pytest
import torch

from components.video.clip import Clip
from components.video.contact_sheets import contact_sheet, side_by_side


def plain(value: int, frames: int = 9, height: int = 48, width: int = 48) -> Clip:
    return Clip(torch.full((frames, 3, height, width), value, dtype=torch.uint8), 8.0)


def test_rows_are_clips_and_columns_are_frames_in_order() -> None:
    levels = torch.arange(0, 90, 10, dtype=torch.uint8).reshape(9, 1, 1, 1).expand(9, 3, 48, 48)
    sheet = contact_sheet(
        [Clip(levels.contiguous(), 8.0), plain(200)], ["first", "second"], columns=3, cell=48
    )
    pixels = np.asarray(sheet)
    right = pixels.shape[1] - 12 - 24
    rows = [[pixels[y, right - back * 52, 0] for back in (2, 1, 0)] for y in (12 + 24, 12 + 52 + 24)]
    assert rows == [[0, 40, 80], [200, 200, 200]]


def test_labels_and_title_are_drawn_beside_the_frames() -> None:
    with_text = np.asarray(contact_sheet([plain(250)], ["two\nlines"], title="a title"))
    assert (with_text[:, :40] < 100).any() and with_text.shape[0] > 96 + 24
    blank = np.asarray(contact_sheet([plain(250)], [""]))
    assert not (blank < 100).any()


def test_sizes_and_lengths_may_differ() -> None:
    sheet = contact_sheet([plain(1, 9, 48, 48), plain(2, 1, 30, 70)], ["a", "b"], columns=4, cell=50)
    assert sheet.width > 4 * 50
    pair = side_by_side([plain(10, 9), plain(20, 4, 30, 40)], ["base", "aligned"], height=96)
    assert pair.num_frames == 9 and pair.fps == 8.0
    assert pair.frames.dtype == torch.uint8 and pair.height > 96
    bottom = pair.frames[8, 0, -1]
    assert bottom[50] == 10 and bottom[-50] == 20


def test_a_label_for_each_clip() -> None:
    with pytest.raises(ValueError, match="one label"):
        contact_sheet([plain(1)], [])
    with pytest.raises(ValueError, match="one label"):
        side_by_side([], [])
