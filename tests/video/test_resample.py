from __future__ import annotations

import pytest
import torch

from components.video.clip import Clip
from components.video.resample import crop, resample_fps, resize, window


def numbered(count: int, fps: float) -> Clip:
    """A clip whose frame k has the value k everywhere."""
    frames = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(count, 3, 2, 2)
    return Clip(frames.contiguous(), fps)


def shown(clip: Clip) -> list[int]:
    return [int(value) for value in clip.frames[:, 0, 0, 0]]


def test_halving_the_rate_takes_every_other_frame() -> None:
    assert shown(resample_fps(numbered(8, 16.0), 8.0)) == [0, 2, 4, 6]


def test_doubling_the_rate_repeats_frames() -> None:
    assert shown(resample_fps(numbered(3, 4.0), 8.0)) == [0, 1, 1, 2, 2, 2]


def test_film_rate_to_eight_takes_every_third() -> None:
    got = resample_fps(numbered(24, 24.0), 8.0)
    assert shown(got) == [0, 3, 6, 9, 12, 15, 18, 21]
    assert got.fps == 8.0


def test_uneven_ratio_takes_the_nearest_in_time() -> None:
    # At 30 fps, 8 fps falls on frames 0, 3.75, 7.5 (up), 11.25, 15, 18.75, 22.5 (up), 26.25.
    assert shown(resample_fps(numbered(30, 30.0), 8.0)) == [0, 4, 8, 11, 15, 19, 23, 26]


def test_one_frame_stays_one_frame_at_least() -> None:
    assert shown(resample_fps(numbered(1, 30.0), 1.0)) == [0]


def test_shrinking_a_fine_checkerboard_gives_grey_not_a_pattern() -> None:
    board = (torch.arange(64)[:, None] + torch.arange(64)[None]).remainder(2).float()
    clip = Clip(board.expand(2, 3, 64, 64).contiguous(), 8.0)
    small = resize(clip, (16, 16)).frames[:, :, 2:-2, 2:-2]
    assert (small - 0.5).abs().max() < 0.02


def test_a_ramp_stays_a_ramp_and_a_plain_frame_plain() -> None:
    ramp = torch.linspace(0.2, 0.8, 40).expand(1, 3, 20, 40).contiguous()
    small = resize(Clip(ramp, 8.0), (10, 20)).frames[0, 0, 5]
    # Pixel k of the half-size row covers pixels 2k and 2k + 1.
    assert torch.allclose(small[2:-2], ramp[0, 0, 0].reshape(20, 2).mean(1)[2:-2], atol=1e-3)
    plain = Clip(torch.full((1, 3, 30, 50), 77, dtype=torch.uint8), 8.0)
    assert torch.equal(resize(plain, (13, 17)).frames, torch.full((1, 3, 13, 17), 77, dtype=torch.uint8))


def test_crop_and_window_take_what_was_asked_and_nothing_outside() -> None:
    frames = torch.arange(4 * 3 * 6 * 8, dtype=torch.float32).reshape(4, 3, 6, 8) / 1000
    clip = Clip(frames, 8.0)
    assert torch.equal(crop(clip, 1, 2, 3, 4).frames, frames[:, :, 1:4, 2:6])
    assert torch.equal(window(clip, 1, 2).frames, frames[1:3])
    for bad in ((5, 0, 2, 2), (0, 7, 2, 2), (-1, 0, 2, 2), (0, 0, 0, 2)):
        with pytest.raises(ValueError, match="not inside"):
            crop(clip, *bad)
    with pytest.raises(ValueError, match="not inside"):
        window(clip, 3, 2)
