"""A video decoded again at each look is the video held in memory, frame by frame."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.runtime.errors import InputError
from components.video.codec import read_video
from components.video.decode import frames as frames_module
from components.video.decode.frames import StreamedFrames, held, open_frames
from tests.video.decode.oracle import make, pictures
from tests.video.decode.test_timing import numbered
from tests.video.files import encode


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[StreamedFrames, Tensor]:
    """An uneven video (a hold in the middle), streamed and held."""
    times = [k / 24 for k in range(20)] + [1 + k / 24 for k in range(10)]
    path = encode(numbered(30), tmp_path_factory.mktemp("frames") / "a.mkv", times=times)
    streamed, rate = open_frames(path, held_pixels=1000)
    clip = read_video(path)
    assert isinstance(streamed, StreamedFrames) and rate == clip.fps
    return streamed, clip.frames


def test_every_way_of_looking_gives_the_same_frames(both: tuple[StreamedFrames, Tensor]) -> None:
    streamed, whole = both
    assert (len(streamed), streamed.shape) == (len(whole), whole.shape)
    assert torch.equal(held(streamed), whole)
    assert torch.equal(torch.stack(list(streamed)), whole)
    assert [len(part) for part in streamed.split(8)] == [len(part) for part in whole.split(8)]
    assert torch.equal(torch.cat(list(streamed.split(8))), whole)
    for index in ([0, -1], [-1, 0], [3, 3, 3, 29], [20, 4, 4, 25]):
        assert torch.equal(streamed[index], whole[index])
    for place in (0, 17, -1):
        assert torch.equal(streamed[place], whole[place])
    for part in (slice(None, -1), slice(1, None), slice(2, 30, 5), slice(None, None, 3), slice(4, 9)):
        assert torch.equal(held(streamed[part]), whole[part])
    for place, (before, after) in enumerate(zip(streamed[:10], streamed[10:20], strict=True)):
        assert torch.equal(before, whole[place]) and torch.equal(after, whole[place + 10])
    with pytest.raises(ValueError, match="forwards"):
        streamed[::-1]


def test_few_frames_are_held(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", pictures(10))
    frames, _ = open_frames(path)
    assert isinstance(frames, Tensor) and torch.equal(frames, read_video(path).frames)


def test_only_the_frames_that_are_looked_at_are_turned_into_pixels(
    both: tuple[StreamedFrames, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = frames_module.rgb_frames

    def counted(*arguments: object, **options: object) -> object:
        for place, found in enumerate(real(*arguments, **options)):  # type: ignore[arg-type]
            seen.extend([place] * (found[1] is not None))
            yield found

    monkeypatch.setattr(frames_module, "rgb_frames", counted)
    streamed, _ = both
    list(itertools.islice(streamed[::10], 2))
    assert len(seen) == 2


def test_a_cut_file_is_refused_though_its_frames_are_not_kept(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mkv", pictures(60))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match="truncated"):
        open_frames(path, held_pixels=1000)


def test_a_video_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", pictures(10))
    with pytest.raises(InputError, match="too large"):
        open_frames(path, held_pixels=1000, max_pixels=5 * 96 * 64)
