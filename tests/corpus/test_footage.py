from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from components.corpus import footage, packaged
from components.corpus.folder import splits_of, take_folder
from components.corpus.footage import FootageReport, FootageSource, read_footage, share, why_dropped
from components.corpus.params import CorpusParams
from components.runtime.errors import InputError
from components.video.clip import Clip
from tests.video.files import drifting_clip, encode, encode_sound

PARAMS = CorpusParams(clips_per_video=3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good videos of 2 s, one of them twice, and one of each kind of bad one."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "deeper").mkdir()
    draws = torch.Generator().manual_seed(1)
    for index in range(4):
        wide = torch.rand(1, 3, 18, 30, generator=draws)
        wide = torch.nn.functional.interpolate(wide, size=(72, 120 + 48), mode="bicubic").clamp(0, 1)[0]
        frames = torch.stack([wide[:, :, k : k + 120] for k in range(48)])
        name = f"deeper/good{index}.mp4" if index == 3 else f"good{index}.mp4"
        encode(Clip((frames * 255).to(torch.uint8), 24.0), folder / name)
    shutil.copy(folder / "good0.mp4", folder / "zz copy of good0.mp4")
    good = (folder / "good1.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(good[: len(good) // 2])
    (folder / "empty.mov").touch()
    (folder / "text.avi").write_text("no video at all")
    encode_sound(folder / "sound.mp4")
    still = Clip(
        torch.rand(1, 3, 64, 64, generator=draws).expand(48, -1, -1, -1).contiguous(), 24.0
    ).as_uint8()
    encode(still, folder / "still.mp4")
    encode(Clip(still.frames[:5], 24.0), folder / "short.mp4")
    encode(Clip(still.frames, 4.0), folder / "slow.mp4")
    encode(Clip(still.frames[:, :, :32, :32].contiguous(), 24.0), folder / "small.mp4")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_a_folder_with_broken_videos_gives_the_good_ones_and_a_reason_for_each_other(videos: Path) -> None:
    taken, reports = take_folder(str(videos), PARAMS)
    good = ("deeper/good3", "good0", "good1", "good2")
    assert Counter(record.content for record, _ in taken) == {f"file/{name}.mp4": 3 for name in good}
    assert all(frames.shape == (9, 3, 48, 48) and frames.dtype == torch.uint8 for _, frames in taken)
    reasons = {report.name: report.reason for report in reports if report.reason}
    expected = {
        "cut.mp4": "truncated",
        "empty.mov": "empty",
        "text.avi": "not a video",
        "sound.mp4": "no video stream",
        "still.mp4": "moves",
        "short.mp4": "without a shot",
        "slow.mp4": "4 frames per second",
        "small.mp4": "32 x 32",
        "zz copy of good0.mp4": "same bytes as good0.mp4",
    }
    assert reasons.keys() == expected.keys()
    for name, words in expected.items():
        reason = reasons[name]
        assert reason is not None and words in reason and "\n" not in reason
        assert str(videos) not in reason


def test_each_video_is_in_one_split_whatever_its_name(videos: Path, tmp_path: Path) -> None:
    def by_bytes(folder: Path) -> dict[bytes, str]:
        taken, _ = take_folder(str(folder), PARAMS)
        return {(folder / row.content.removeprefix("file/")).read_bytes(): row.split for row, _ in taken}

    first = by_bytes(videos)
    for place, name in enumerate(("good2", "good0", "good1", "deeper/good3")):
        shutil.copy(videos / f"{name}.mp4", tmp_path / f"{place}.mp4")
    assert by_bytes(tmp_path) == first
    assert sorted(first.values()) == ["test", "train", "train", "val"]


@pytest.mark.parametrize("count", range(1, 40))
def test_no_split_is_empty_from_three_videos_on(count: int) -> None:
    splits = splits_of(count, PARAMS)
    assert len(splits) == count and splits[0] == "train"
    assert len(set(splits)) == min(3, count)


def test_nothing_usable_is_one_line(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.mp4").write_text("broken")
    with pytest.raises(InputError, match=r"none of its 9 video files.*0\.mp4: .*and 4 more") as caught:
        take_folder(str(tmp_path), PARAMS)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such folder"):
        take_folder(str(tmp_path / "none"), PARAMS)
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="no video files"):
        take_folder(str(tmp_path / "bare"), PARAMS)


def test_links_are_not_followed(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(videos / "good0.mp4")
    with pytest.raises(InputError, match="no video files"):
        take_folder(str(tmp_path), PARAMS)


def test_an_s3_prefix_is_brought_here_first(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(uri: str, dest: Path) -> list[str]:
        assert uri == "s3://bucket/videos"
        shutil.copy(videos / "good0.mp4", dest / "good0.mp4")
        return ["good0.mp4"]

    monkeypatch.setattr("components.corpus.folder.download_dir", download)
    taken, reports = take_folder("s3://bucket/videos", PARAMS)
    assert {record.content for record, _ in taken} == {"file/good0.mp4"}
    assert reports[0].origin == "s3://bucket/videos"


def test_no_clip_spans_a_cut(tmp_path: Path) -> None:
    drifting = drifting_clip()
    other = drifting.frames.flip(3).roll(30, dims=2)
    double = torch.cat([drifting.frames, drifting.frames.flip(0), other, other.flip(0)])
    pieces = read_footage(encode(Clip(double, 24.0), tmp_path / "cut.mp4"), PARAMS)
    assert [shot.num_frames for shot in pieces] == [16, 16]


def test_what_is_dropped() -> None:
    draws = torch.Generator().manual_seed(0)
    texture = torch.randint(0, 256, (3, 48, 60), generator=draws).to(torch.uint8)
    moving = torch.stack([texture[:, :, k : k + 48] for k in range(9)])
    assert why_dropped(moving) is None
    assert why_dropped(moving[:1].expand(9, -1, -1, -1)) == "nothing moves"
    assert why_dropped(torch.full((9, 3, 48, 48), 90, dtype=torch.uint8)) == "nearly uniform"
    ramp = torch.linspace(0, 150, 48).to(torch.uint8).expand(9, 3, 48, 48)
    assert why_dropped(ramp // 2 + 20) == "out of focus"


def test_shares_add_up_and_follow_the_weights() -> None:
    assert share([1, 1, 1], 10) == [4, 3, 3]
    assert share([2, 1, 1], 8) == [4, 2, 2]
    assert share([5, 0.1], 0) == [0, 0]
    assert share([], 5) == []
    assert sum(share([0.3, 1.7, 9.1, 2.2], 101)) == 101


def test_every_split_has_packaged_files_of_its_own() -> None:
    names = [item.name for item in packaged.PACKAGED]
    paths = [item.path for item in packaged.PACKAGED]
    assert len(set(names)) == len(names) and len(set(paths)) == len(paths)
    for split in ("train", "val", "test"):
        assert sum(item.split == split and item.is_video for item in packaged.PACKAGED) == 1
        assert sum(item.split == split and not item.is_video for item in packaged.PACKAGED) >= 2


def test_a_missing_package_is_reported_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    here = packaged.PackagedFile("coins", "scikit-image", "skimage/data/coins.png", "train")
    gone = packaged.PackagedFile("gone", "no-such-package-at-all", "x/y.mp4", "val")
    monkeypatch.setattr(footage, "PACKAGED", (here, gone))
    found = list(footage.packaged_sources(PARAMS))
    assert isinstance(found[0], FootageSource) and found[0].content == "photo/coins"
    assert isinstance(found[1], FootageReport)
    assert re.search("no-such-package-at-all is not installed", found[1].reason or "")
