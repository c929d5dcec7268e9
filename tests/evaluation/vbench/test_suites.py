"""Suites from every source, and folders of videos against them."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.vbench.files import prompt_of, video_name
from components.evaluation.vbench.folder import counts, find_videos
from components.evaluation.vbench.suites import INFO, load_suite
from components.runtime.artifacts.artifact import cache_dir
from components.runtime.errors import InputError

ENTRIES: list[dict[str, Any]] = [
    {"prompt_en": "a still car, frozen in time", "dimension": ["temporal_flickering"]},
    {"prompt_en": "a red car", "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}},
    {"prompt_en": "a dog runs.", "dimension": ["subject_consistency", "dynamic_degree"]},
    {"prompt_en": "a dog runs.", "dimension": ["overall_consistency"]},
]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel with nothing in it but the suite and code that must not run."""
    path = tmp_path / "vbench-9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(INFO, json.dumps(ENTRIES))
        archive.writestr("vbench/__init__.py", "raise SystemExit('imported')")
    return path


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def test_a_wheel_and_its_json_are_the_same_suite(wheel: Path, tmp_path: Path) -> None:
    file = tmp_path / "info.json"
    file.write_text(json.dumps(ENTRIES))
    one, other = load_suite(str(wheel)), load_suite(str(file))
    assert one.digest == other.digest
    assert one.wanted() == {"a still car, frozen in time": 25, "a red car": 5, "a dog runs.": 5}
    assert one.entries[1].facts() == {"color": {"color": "red"}}
    assert one.entries[2].facts() == {"subject_consistency": {}, "dynamic_degree": {}}
    assert load_suite(str(wheel), samples=2).wanted() == dict.fromkeys(one.wanted(), 2)


def test_the_published_suite_is_downloaded_once_and_never_imported(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def download(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if len(calls) == 1:
            return subprocess.CompletedProcess(command, 1, "", "no index\nreachable")
        shutil.copy(wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("components.evaluation.vbench.suites.subprocess.run", download)
    shutil.rmtree(cache_dir() / "suites", ignore_errors=True)
    with pytest.raises(InputError, match=r"could not download vbench==0\.1\.5; .*: no index reachable"):
        load_suite("vbench")
    assert load_suite("vbench").digest == load_suite(str(wheel)).digest
    load_suite("vbench")
    assert len(calls) == 2
    assert calls[1][1:4] == ["-m", "pip", "download"]
    assert "--no-deps" in calls[1]


def test_only_some_dimensions(wheel: Path) -> None:
    some = load_suite(str(wheel)).only(["dynamic_degree", "overall_consistency"])
    assert [entry.dimensions for entry in some.entries] == [("dynamic_degree",), ("overall_consistency",)]
    with pytest.raises(InputError, match=r"'colour': unknown; allowed are subject_consistency"):
        load_suite(str(wheel)).only(["colour"])
    with pytest.raises(InputError, match="no prompt is for scene"):
        load_suite(str(wheel)).only(["scene"])


def test_a_list_of_prompts_gets_what_needs_no_more_than_a_prompt(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# ours\na cat\n\nA person is juggling balls\na cat\n")
    suite = load_suite(str(file), samples=3)
    assert suite.wanted() == {"a cat": 3, "A person is juggling balls": 3}
    cat, person = (set(entry.dimensions) for entry in suite.entries)
    assert {"subject_consistency", "temporal_flickering", "imaging_quality", "overall_consistency"} <= cat
    assert not cat & {"color", "scene", "object_class", "temporal_style", "human_action"}
    assert person - cat == {"human_action"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no prompt in it"),
        ("{}", "expected a list of prompts, or an object with `prompts`"),
        ('[{"prompt": "a", "dimension": ["color"]}]', "prompt_en"),
        ('[{"prompt_en": "a", "dimension": ["beauty"]}]', "'beauty' is not one of VBench's sixteen"),
        ("not json", "not readable as JSON"),
        ('[{"prompt_en": "a", "dimension": [["color"]]}]', "expected a list"),
    ],
)
def test_a_bad_suite_is_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        load_suite(str(file))


def test_what_is_not_a_suite_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; allowed are vbench"):
        load_suite(str(tmp_path / "none.json"))
    wrong = tmp_path / "other.whl"
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(InputError, match="not VBench's wheel"):
        load_suite(str(wrong))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no video in the folder"):
        load_suite(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a cat", "a cat-3.mp4"),
        ("A 3D model of a 1800s victorian house.", "A 3D model of a 1800s victorian house.-3.mp4"),
        ("either/or", "either_or-3.mp4"),
        ("...", "prompt-3.mp4"),
        ("é" * 200, "é" * 120 + "-3.mp4"),
    ],
)
def test_names_of_videos(prompt: str, name: str) -> None:
    assert video_name(prompt, 3) == name
    assert len(video_name(prompt, 24).encode()) < 255


def test_the_prompt_of_a_file_name() -> None:
    assert prompt_of("videos/a cat-12.mp4") == "a cat"
    assert prompt_of("a cat.mp4") == "a cat"
    assert prompt_of("a black-and-white cat-0.mp4") == "a black-and-white cat"


def test_every_video_that_is_not_as_it_should_be_is_named_once(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    touch(folder, *(f"a red car-{index}.mp4" for index in (0, 1, 2, 4, 7)))
    touch(folder, "A red car -3.mp4", "a dog runs.-0.mp4", "a dog runs-1.mp4", "a dog runs..mp4", "notes.txt")
    still = "a still car, frozen in time"
    touch(folder, *(f"{still}-{index}.mp4" for index in (*range(7), 8)), "a cow-0.mp4")
    touch(folder, ".hidden", "samples.jsonl")
    found = find_videos(load_suite(str(wheel)), folder)
    assert [path.name for path in found.videos["a red car"]] == [
        f"a red car-{index}.mp4" for index in (0, 1, 2, 4)
    ]
    assert len(found.videos[still]) == 8  # more than five are welcome, up to 25
    by_kind: dict[str, list[str]] = {}
    for one in found.problems:
        by_kind.setdefault(one.kind, []).append(one.name)
    dogs = [f"a dog runs.-{index}.mp4" for index in range(1, 5)]
    assert by_kind["missing"] == [f"{still}-7.mp4", "a red car-3.mp4", *dogs]
    assert sorted(by_kind["misnamed"]) == ["A red car -3.mp4", "a dog runs-1.mp4"]
    assert sorted(by_kind["extra"]) == ["a cow-0.mp4", "a dog runs..mp4", "a red car-7.mp4", "notes.txt"]
    meant = {one.name: one.about for one in found.problems if one.kind == "misnamed"}
    assert meant["A red car -3.mp4"] == "probably meant a red car-3.mp4"
    assert counts(found.problems) == {"missing": 6, "extra": 4, "misnamed": 2, "broken": 0}


def test_prompts_whose_videos_would_share_names_are_refused(tmp_path: Path) -> None:
    """One would be taken for the other's, without a word."""
    file = tmp_path / "prompts.txt"
    file.write_text("either/or\neither_or\n")
    with pytest.raises(InputError, match=r"'either_or' and of 'either/or' would have the same names"):
        load_suite(str(file))
    file.write_text(f"{'a' * 240}b\n{'a' * 240}c\n")
    with pytest.raises(InputError, match=r"would have the same names .* give this list as --augmented"):
        load_suite(str(file))


def test_rewritten_prompts_stand_for_the_suites_own_line_by_line(wheel: Path, tmp_path: Path) -> None:
    """VBench's own rewrites: longer than 1,000 characters, alike in their first 240 bytes."""
    suite, file = load_suite(str(wheel)), tmp_path / "longer.txt"
    longer = [f"{'x' * 1400} {number}" for number in range(4)]
    file.write_text("\n".join(longer))
    found = suite.augmented_by(str(file))
    assert found.augmented == {
        "a still car, frozen in time": longer[0],
        "a red car": longer[1],
        "a dog runs.": longer[2],  # twice in the suite: the first one counts
    }
    assert (found.wanted(), found.digest) == (suite.wanted(), suite.digest)
    part = suite.only(["color"])
    assert part.augmented_by(str(file), suite).augmented == found.augmented
    file.write_text("a shiny red car\n")
    assert part.augmented_by(str(file), suite).augmented == {"a red car": "a shiny red car"}
    file.write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"longer\.txt: 2 prompts, suite vbench-9.9.* needs 4 or 1"):
        part.augmented_by(str(file), suite)


def test_a_folder_is_its_own_suite(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    touch(folder, "a cat-0.mp4", "a cat-1.webm", "a dog.gif", "readme.md", ".a cow-0.mp4")
    suite = load_suite(str(folder))
    found = find_videos(suite, folder)
    assert {prompt: len(paths) for prompt, paths in found.videos.items()} == {"a cat": 2, "a dog": 1}
    assert [(one.kind, one.name) for one in found.problems] == [("extra", "readme.md")]


def test_a_folder_has_the_prompts_that_were_noted_when_it_was_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    long = "many words " * 40
    prompts = {video_name(one, 0): one for one in ("either/or: a cat", long.strip(), ".hidden")}
    touch(folder, *prompts, "a dog-0.mp4")
    lines = [json.dumps({"file": name, "prompt": prompt, "seed": 1}) for name, prompt in prompts.items()]
    for place in (tmp_path / "videos.samples.jsonl", folder / "samples.jsonl"):  # where it is, where it was
        place.write_text("\n".join(lines))
        suite = load_suite(str(folder))
        found = find_videos(suite, folder)
        assert {prompt: [path.name for path in paths] for prompt, paths in found.videos.items()} == {
            prompt: [name] for name, prompt in prompts.items()
        } | {"a dog": ["a dog-0.mp4"]}
        assert not found.problems
        place.unlink()


def test_other_containers_are_taken(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    touch(folder, "a red car-0.webm", "a red car-1.mp4", "a red car-1.webm")
    found = find_videos(load_suite(str(wheel), samples=2).only(["color"]), folder)
    assert [path.name for path in found.videos["a red car"]] == ["a red car-0.webm", "a red car-1.mp4"]
    assert [(one.kind, one.name) for one in found.problems] == [("extra", "a red car-1.webm")]
