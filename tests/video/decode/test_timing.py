"""Variable frame rates: by ffmpeg's constant-rate output, by hand, and in bounded memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from components.runtime.errors import InputError
from components.video.clip import Clip
from components.video.codec import read_video
from components.video.decode.timing import timing_of
from tests.video.decode import oracle
from tests.video.decode.oracle import numbers, pictures
from tests.video.files import encode


def numbered(count: int) -> Clip:
    return Clip(torch.from_numpy(pictures(count)).permute(0, 3, 1, 2).contiguous(), 24.0)


def test_a_long_hold_does_not_thin_out_the_motion_around_it(tmp_path: Path) -> None:
    """12 frames at 24 a second, three seconds of the last one, 12 more: as ffmpeg's fps filter."""
    times = [k / 24 for k in range(12)] + [11 / 24 + 3 + k / 24 for k in range(12)]
    path = encode(numbered(24), tmp_path / "hold.mkv", times=times)
    clip = read_video(path)
    assert clip.fps == pytest.approx(24.0, rel=0.002)
    shown = numbers(np.ascontiguousarray(clip.frames.permute(0, 2, 3, 1).numpy()))
    assert shown == list(range(11)) + [11] * 72 + list(range(12, 24))
    constant = tmp_path / "constant.mkv"
    oracle.ffmpeg("-v", "error", "-i", path, "-vf", "fps=24", "-c:v", "ffv1", constant)
    assert shown == numbers(oracle.read(constant))


def test_a_phones_jitter_and_a_lost_frame() -> None:
    """33 ms give or take 3, one gap of two: the usual gap's rate, and the frame before the gap is held."""
    jitter = np.random.default_rng(0).uniform(-0.003, 0.003, 60)
    times = np.arange(60) / 30 + jitter
    even = timing_of(list(times), None)
    assert even is not None and even.steps is None
    assert even.fps == pytest.approx(30, rel=0.01)
    lost = timing_of([time for place, time in enumerate(np.arange(60) / 30) if place != 20], 29.5)
    assert lost is not None
    assert lost.fps == pytest.approx(30, rel=1e-6)
    assert lost.shown(59).tolist() == [*range(20), 19, *range(20, 59)]


def test_of_frames_within_one_step_the_last_is_shown() -> None:
    timing = timing_of([0.0, 0.1, 0.2, 0.201, 0.3, 0.4, 0.5], None)
    assert timing is not None and timing.fps == pytest.approx(10, rel=0.01)
    assert timing.shown(7).tolist() == [0, 1, 3, 4, 5, 6]
    assert timing.shown(7, 3).tolist() == [0, 1, 3]


def test_stamps_of_a_coarse_clock_take_the_headers_rate() -> None:
    """Milliseconds at 60 a second: gaps of 16 and 17."""
    times = [round(1000 * place / 60) / 1000 for place in range(90)]
    timing = timing_of(times, 60.0)
    assert timing is not None and timing.fps == 60.0 and timing.steps is None


def test_a_hold_of_years_is_refused_not_repeated(tmp_path: Path) -> None:
    path = encode(numbered(4), tmp_path / "years.mkv", times=[0, 0.04, 0.08, 1e7])
    with pytest.raises(InputError, match="too large"):
        read_video(path)
    assert read_video(path, max_frames=3).num_frames == 3


def test_memory_grows_with_the_frames_not_with_their_square(tmp_path: Path) -> None:
    """6,000 frames of uneven gaps; a table of every step against every frame would take 288 MB and more."""
    clip = Clip(torch.zeros(6000, 3, 16, 16, dtype=torch.uint8), 25.0)
    times = np.cumsum(np.where(np.arange(6000) % 7, 0.04, 0.12)).tolist()
    path = encode(clip, tmp_path / "long.mkv", codec="mpeg4", times=times)
    tracemalloc.start()
    try:
        read_video(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100e6
