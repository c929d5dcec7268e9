from __future__ import annotations

import pytest
import torch

from components.video.clip import Clip, ClipFormat


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


def test_clips_are_brought_to_a_models_format() -> None:
    goal = ClipFormat(5, 24, 24, 8.0)
    same = torch.randint(0, 256, (2, 5, 3, 24, 24), dtype=torch.uint8)
    assert torch.equal(goal.fit(same, 8.0), same)
    assert goal.fit(same, 8.0).data_ptr() != same.data_ptr()
    # Twice the frame rate: every other frame, and no more than five.
    fast = torch.randint(0, 256, (2, 13, 3, 24, 24), dtype=torch.uint8)
    assert torch.equal(goal.fit(fast, 16.0), fast[:, [0, 2, 4, 6, 8]])
    assert torch.equal(goal.fit(fast[0]), fast[0, :5])
    assert goal.fit(fast[:, :3], 4.0).shape[1] == 3
    smooth = torch.linspace(0, 255, 48).round().to(torch.uint8).expand(2, 5, 3, 48, 48)
    large = goal.fit(smooth, 8.0)
    assert large.shape == (2, 5, 3, 24, 24) and large.dtype == torch.uint8
    assert abs(float(large.float().mean() - smooth.float().mean())) < 1.0
    assert goal.fit(smooth[:0], 8.0).shape[0] == 0
