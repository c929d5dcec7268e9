"""Which pairs are shown, and how they are made into small videos."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from components.evaluation.report.side_by_side import as_videos, beside, choose_pairs
from components.evaluation.samples import Request
from components.video.codec import read_video


def chosen(difference: NDArray[np.float64], number: int) -> dict[str, list[int]]:
    """Places by group."""
    requests = [Request(f"p{i}", f"prompt {i}", 0, i) for i in range(len(difference))]
    figures = {"judge": (np.zeros(len(difference)), difference)}
    places: dict[str, list[int]] = {}
    for pair in choose_pairs(requests, figures, number, np.random.default_rng(0)):
        assert (pair.prompt, pair.figures["judge"][1]) == (f"prompt {pair.place}", difference[pair.place])
        places.setdefault(pair.group, []).append(pair.place)
    return places


def test_pairs_are_chosen_by_rule_and_none_twice() -> None:
    places = chosen(np.array([0.1, -0.5, 0.9, 0.0, 0.4, -0.1, 0.2, 0.3, -0.9, 0.5]), 3)
    assert places["best"] == [2, 9, 4]
    assert places["worst"] == [8, 1, 5]
    assert len(places["random"]) == 3
    assert len({place for group in places.values() for place in group}) == 9


def test_few_pairs_are_shown_once_each() -> None:
    for number in (1, 2, 3, 4):
        places = chosen(np.arange(number, dtype=float), 4)
        everything = [place for group in places.values() for place in group]
        assert len(set(everything)) == len(everything)
        assert places["best"][0] == number - 1


def test_both_halves_share_one_clip() -> None:
    base = torch.zeros(9, 3, 48, 48, dtype=torch.uint8)
    clip = beside(base, 255 - base, 8.0)
    assert (clip.num_frames, clip.height, clip.width) == (9, 192, 392)
    assert clip.frames[..., :192].max() == 0
    assert clip.frames[..., -192:].min() == 255


def test_shrinking_takes_the_mean_of_the_pixels() -> None:
    base = torch.tensor([[10, 20], [30, 41]], dtype=torch.uint8).repeat(8, 8).expand(2, 3, 16, 16)
    clip = beside(base, base, 8.0, shrink=2)
    assert (clip.height, clip.width) == (8, 24)
    assert clip.frames[..., :8].unique().tolist() == [25]


def test_large_clips_are_made_smaller_until_all_fit(tmp_path: Path) -> None:
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 5, 3, 64, 640), dtype=np.uint8))
    videos, shrink = as_videos(noise, noise, [0, 1], 8.0)
    assert shrink == 2
    whole = sum(len(base64.b64decode(video.partition(",")[2])) for video in videos)
    assert as_videos(noise, noise, [0, 1], 8.0, budget=whole)[1] == 2
    smaller, shrink = as_videos(noise, noise, [0, 1], 8.0, budget=whole - 1)
    assert shrink == 4
    assert sum(map(len, smaller)) < sum(map(len, videos))
    file = tmp_path / "clip.mp4"
    file.write_bytes(base64.b64decode(smaller[0].removeprefix("data:video/mp4;base64,")))
    clip = read_video(file)
    assert (clip.num_frames, clip.height, clip.width) == (5, 16, 328)


def test_clips_too_small_to_shrink_are_shown_whatever_they_weigh() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 3, 24, 24), dtype=np.uint8))
    assert as_videos(noise, noise, [0], 8.0, budget=1)[1] == 1
