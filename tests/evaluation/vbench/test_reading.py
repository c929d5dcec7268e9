"""How files become videos to measure: long ones, names from other systems, folders of nothing whole."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from components.corpus.folder import take_folder
from components.corpus.params import CorpusParams
from components.evaluation.__main__ import app
from components.evaluation.models import ModelStore
from components.evaluation.vbench.folder import find_videos
from components.evaluation.vbench.score import Scores, Settings, score
from components.evaluation.vbench.suites import Suite, load_suite
from components.reward.scoring.videos import sources
from components.runtime.errors import InputError
from components.runtime.step import main
from components.video.clip import Clip
from components.video.codec import write_video
from components.video.decode import frames
from components.video.names import VIDEO_SUFFIXES

CAFE = "un café à Zürich"
DECOMPOSED = unicodedata.normalize("NFD", CAFE)


def moving(seed: int, number: int = 12, side: int = 64) -> Clip:
    """A texture that slides."""
    draws = np.random.default_rng(seed)
    wide = draws.integers(0, 256, (side, side + number), dtype=np.uint8).repeat(2, axis=0)[:side]
    pictures = np.stack([wide[:, k : k + side] for k in range(number)])
    return Clip(torch.from_numpy(pictures[:, None].repeat(3, axis=1).copy()), 8.0)


def still(picture: NDArray[np.uint8], number: int, path: Path) -> None:
    """Write one picture (H, W, 3) over and over, holding it once."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for _ in range(number):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def suite_of(folder: Path, *prompts: str) -> Suite:
    file = folder.parent / "prompts.txt"
    file.write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
    return load_suite(str(file), 1)


def measured(suite: Suite, folder: Path, store: ModelStore, compat: bool = False) -> Scores:
    return score(suite, folder, store, Settings(compat=compat), folder.parent / ".keep")


@pytest.mark.parametrize("compat", [False, True])
def test_a_long_video_scores_as_if_it_were_held(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, compat: bool
) -> None:
    """The same file decoded anew for each look, with every dimension that takes a plain prompt."""
    folder = tmp_path / "videos"
    folder.mkdir()
    prompt = "a person is marching"
    write_video(moving(1), folder / f"{prompt}-0.mp4", scale=1)
    suite, store = suite_of(folder, prompt), ModelStore(str(tiny_weights))
    whole = measured(suite, folder, store, compat)
    assert len(whole.results) >= 7
    monkeypatch.setattr(
        "components.evaluation.vbench.score.open_frames", lambda path: frames.open_frames(path, 1)
    )
    assert measured(suite, folder, store, compat).results == whole.results


def test_a_large_video_is_measured(tmp_path: Path) -> None:
    """More than 400 million pixels over all frames, held nowhere together."""
    folder = tmp_path / "videos"
    folder.mkdir()
    grey = np.full((1080, 1920, 3), 90, np.uint8)
    still(grey, 200, folder / "still-0.mp4")
    suite = suite_of(folder, "still").only(["temporal_flickering"])
    found = measured(suite, folder, ModelStore())
    assert not [one for one in found.problems if one.kind == "broken"]
    assert found.results["temporal_flickering"].score == 1.0


@pytest.mark.parametrize(("prompt", "name"), [(CAFE, DECOMPOSED), (DECOMPOSED, CAFE)])
def test_names_from_macos_are_found(tmp_path: Path, prompt: str, name: str) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(moving(1), folder / f"{name}-0.mp4", scale=1)
    noted = {"file": f"{prompt}-0.mp4", "fps": 16.0, "seed": 7}
    (folder / "samples.jsonl").write_text(json.dumps(noted) + "\n", encoding="utf-8")
    suite = suite_of(folder, prompt).only(["temporal_flickering", "dynamic_degree"])
    found = measured(suite, folder, ModelStore())
    assert found.problems == []
    (video,) = found.results["dynamic_degree"].videos
    assert video.more["seed"] == 7 and video.more["stride"] == 2  # 1/8 s at the noted 16 per second


def test_two_forms_of_one_name_are_one_video_and_one_extra(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in (CAFE, DECOMPOSED):
        (folder / f"{name}-0.mp4").write_bytes(b"x")
    found = find_videos(suite_of(folder, CAFE), folder)
    assert [len(paths) for paths in found.videos.values()] == [1]
    assert [(one.kind, "the same name as" in one.about) for one in found.problems] == [("extra", True)]


@pytest.mark.parametrize("suffix", [*VIDEO_SUFFIXES, ".MP4", ".Mov"])
def test_what_is_a_video_here_is_one_everywhere(tmp_path: Path, suffix: str) -> None:
    """A suite's folder, a folder as suite, a reward's folder and the corpus's own footage."""
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / f"a cat-0{suffix}").write_bytes(b"no video at all")
    for other in (".DS_Store", f"._a cat-0{suffix}", "notes.txt", "a cat-0.jpg"):
        (folder / other).write_bytes(b"x")
    name = f"a cat-0{suffix}"
    found = find_videos(suite_of(folder, "a cat"), folder)
    assert [path.name for path in found.videos["a cat"]] == [name]
    assert {one.name for one in found.problems} == {"notes.txt", "a cat-0.jpg"}
    assert [one.prompt for one in load_suite(str(folder)).entries] == ["a cat"]
    assert [Path(source.name).name for source in sources([str(folder)])] == [name]
    with pytest.raises(InputError, match=r"none of its 1 video files can be used \(a cat-0"):
        take_folder(str(folder), CorpusParams())


def test_a_folder_of_broken_videos_alone_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit 2, no result files, nothing left behind; with one whole video it is a success."""
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for place in range(4):
        (folder / f"a cat-{place}.mp4").write_bytes(b"broken" * 9 * (place + 1))
    arguments = ["score", "--videos", str(folder), "--out", str(out), "--dimension", "temporal_flickering"]
    with pytest.raises(SystemExit) as ended:
        main(app, arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2, said
    line = said.err.strip().splitlines()[-1]
    assert line.startswith(f"error: videos {folder}: none of the 4 can be read (a cat-0.mp4: ")
    assert "and 1 more" in line
    assert not out.exists() or not any(out.iterdir())
    write_video(moving(1), folder / "a cat-0.mp4", scale=1)
    with pytest.raises(SystemExit) as ended:
        main(app, arguments)
    assert ended.value.code == 0
    assert "broken" in capsys.readouterr().out
