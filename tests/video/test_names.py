from __future__ import annotations

import unicodedata

import pytest

from components.video.names import composed, is_video_name


@pytest.mark.parametrize("name", ["a.mp4", "b/A.MP4", "phone.MOV", "itunes.m4v", "clip.m2ts", "a cat-0.webm"])
def test_videos(name: str) -> None:
    assert is_video_name(name)


@pytest.mark.parametrize(
    "name", [".DS_Store", "b/._a.mp4", ".mp4", "notes.txt", "a.mp4.part", "mp4", "a.jpg"]
)
def test_others(name: str) -> None:
    assert not is_video_name(name)


def test_a_name_from_macos_is_the_same_name() -> None:
    name = "un café à Zürich-0.mp4"
    apart = unicodedata.normalize("NFD", name)
    assert apart != name and composed(apart) == composed(name) == name
