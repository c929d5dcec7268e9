from __future__ import annotations

import pytest
import torch

from components.video.clip import Clip


def test_what_is_no_stack_of_rgb_frames_is_refused() -> None:
    good = torch.zeros(2, 3, 4, 4)
    for bad in (good[0], good[:, :1], good[:0], good.double(), good.int()):
        with pytest.raises(ValueError, match="frames must"):
            Clip(bad, 8.0)
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fps"):
            Clip(good, fps)


def test_every_uint8_level_survives_the_way_to_float_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(Clip(levels, 8.0).as_float().as_uint8().frames, levels)


def test_floats_are_rounded_and_clamped_not_truncated() -> None:
    values = (
        torch.tensor([-1.0, 0.0, 0.999 / 255, 1.6 / 255, 1.0, 7.0]).reshape(1, 1, 1, 6).expand(1, 3, 1, 6)
    )
    got = Clip(values.contiguous(), 8.0).as_uint8().frames[0, 0, 0].tolist()
    assert got == [0, 0, 1, 2, 255, 255]


def test_seconds_counts_the_last_frame_too() -> None:
    clip = Clip(torch.zeros(9, 3, 4, 6), 8.0)
    assert (clip.num_frames, clip.height, clip.width, clip.seconds) == (9, 4, 6, 9 / 8)
