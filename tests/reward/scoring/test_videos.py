"""Scoring files: order, completeness past broken ones, bounded memory, names that hurt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from components.reward.base import InputSpec, Rating
from components.reward.scoring import videos as scoring
from components.reward.scoring.trained import TrainedReward
from components.reward.scoring.videos import Source, score_files, sources
from components.runtime.errors import InputError
from components.runtime.io import storage
from components.runtime.step import main
from components.video.clip import Clip
from components.video.codec import read_video, write_video
from tests.reward.conftest import textured, world
from tests.s3 import Store

ODD = [
    b"-dash.mp4",
    b"new\nline.mp4",
    b"non\xffutf.mp4",
    b"a:b.mp4",
    b"concat:x.mp4",
    b" space .mp4",
    b"%d.mp4",
]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The verb in a process of its own, where a library writing past Python would be seen."""
    return subprocess.run(
        [sys.executable, "-m", "components.reward", "score", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def verb(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], list[str]]]:
    """The verb in this process: exit code, lines on stdout, lines on stderr."""

    def run(*arguments: str) -> tuple[int, list[str], list[str]]:
        from components.reward.__main__ import app

        with pytest.raises(SystemExit) as ended:
            main(app, ["score", *arguments])
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out.splitlines(), said.err.splitlines()

    return run


Verb = Callable[..., tuple[int, list[str], list[str]]]


def raw_video(path: Path, frames: int, height: int, width: int, codec: str = "rawvideo") -> Path:
    """An AVI of any size, also one that H.264 cannot have."""
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = (
            width,
            height,
            "bgr24" if codec == "rawvideo" else "yuv420p",
        )
        for number in range(frames):
            picture = np.full((height, width, 3), 20 * number % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good videos of several shapes among broken ones and files of other kinds, in two levels."""
    top = tmp_path_factory.mktemp("videos")
    (top / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(("a.mp4", "c.mp4", "deep/d.mp4", "deep/er/e.mp4")):
        clip = world(1, frames=5 + number % 2, seed=number)[0]
        write_video(Clip(clip, 8.0), top / name, scale=1 + number // 2)
    data = (top / "a.mp4").read_bytes()
    (top / "b.mp4").write_bytes(data[: len(data) // 2])
    (top / "deep" / "empty.mp4").write_bytes(b"")
    (top / "deep" / "notes.txt").write_text("no video\n" * 40)
    (top / "deep" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    (top / ".hidden").write_bytes(os.urandom(3000))
    raw_video(top / "one_frame.avi", 1, 32, 32)
    os.mkfifo(top / "pipe.mp4")
    (top / "dangling.mp4").symlink_to("nowhere")
    return top


GOOD = ["a.mp4", "c.mp4", "deep/d.mp4", "deep/er/e.mp4"]
BAD = {
    "b.mp4": "truncated",
    "dangling.mp4": "no such file",
    "deep/empty.mp4": "empty",
    "one_frame.avi": "1 frame only",
    "pipe.mp4": "not a regular file",
}


def test_a_folder_with_good_broken_and_other_files(untrained: Path, folder: Path) -> None:
    """The whole promise: scores for the good, one line each for the broken, exit 2, nothing lost."""
    done = command("--reward", str(untrained), str(folder))
    assert done.returncode == 2
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == [str(folder / name) for name in GOOD]
    scorer = TrainedReward.load(untrained, "cpu")
    for row in rows:
        clip = read_video(row["path"])
        rating = scorer.rate(clip.frames[None], clip.fps)
        assert set(row) == {"path", "score", "uncertainty", "aspects"}
        assert row["score"] == pytest.approx(float(rating.score), abs=1e-5)
        assert row["uncertainty"] == pytest.approx(float(rating.uncertainty), abs=1e-5)
        known = {name: float(values) for name, values in rating.aspects.items()}
        assert row["aspects"] == pytest.approx(known, abs=1e-5)
    errors = done.stderr.strip().splitlines()
    assert len(errors) == len(BAD) + 1
    for line, (name, said) in zip(
        errors, sorted(BAD.items(), key=lambda item: Path(item[0]).parts), strict=False
    ):
        assert line.startswith(f"error: {folder / name}: ") and said in line, line
    assert errors[-1] == "error: 5 of 9 files could not be scored, 4 were"
    others = [folder / name for name in (".hidden", "deep/notes.txt", "deep/picture.png")]
    assert not any(str(other) in done.stderr for other in others)
    named = command("--reward", str(untrained), *map(str, others))
    assert [line.count("not a video") for line in named.stderr.strip().splitlines()] == [1, 1, 1, 0]


def test_good_files_alone_are_exit_0_and_come_as_often_as_they_are_named(
    untrained: Path, folder: Path, verb: Verb
) -> None:
    twice = [str(folder / "c.mp4"), str(folder / "a.mp4"), str(folder / "c.mp4")]
    code, rows, said = verb("--reward", str(untrained), *twice)
    assert code == 0 and said == ["3 of 3 files scored"]
    assert [json.loads(row)["path"] for row in rows] == twice


def test_no_video_at_all_is_exit_2(untrained: Path, tmp_path: Path, verb: Verb) -> None:
    code, rows, said = verb("--reward", str(untrained), str(tmp_path))
    assert code == 2 and rows == []
    assert said[0] == f"error: {tmp_path}: no video in this folder"
    for name in ("notes.txt", ".DS_Store", "._a.mp4"):
        (tmp_path / name).write_text("x" * 500)
    code, rows, said = verb("--reward", str(untrained), str(tmp_path))
    assert code == 2 and rows == [] and said[0] == f"error: {tmp_path}: no video in this folder"


def test_names_that_hurt(
    untrained: Path, tmp_path: Path, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is found in its folder, scored, printed on one line, and can be found again from that line."""
    clip = tmp_path / "clip.mp4"
    write_video(Clip(world(1)[0], 8.0), clip, scale=1)
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in ODD:
        Path(os.fsdecode(os.fsencode(inside) + b"/" + name)).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    gone = [os.fsdecode(b"gone" + name) for name in ODD]
    code, rows, said = verb("--reward", str(untrained), "inside", "--", *gone)
    paths = [os.fsencode(json.loads(row)["path"]) for row in rows]
    assert code == 2 and paths == sorted(b"inside/" + name for name in ODD)
    assert len({json.loads(row)["score"] for row in rows}) == 1
    assert len(said) == len(ODD) + 1
    assert r"error: gonenew\nline.mp4: no such file or directory" in said
    assert r"error: gonenon\udcffutf.mp4: no such file or directory" in said
    monkeypatch.chdir(inside)
    code, rows, said = verb("--reward", str(untrained), "--", "-dash.mp4", "a:b.mp4")
    assert code == 0 and [json.loads(row)["path"] for row in rows] == ["-dash.mp4", "a:b.mp4"], said


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 64), (17, 33), (720, 3)])
def test_odd_sizes_get_a_finite_score(untrained: Path, tmp_path: Path, height: int, width: int) -> None:
    file = raw_video(tmp_path / "odd.avi", 6, height, width)
    (result,) = score_files(TrainedReward.load(untrained, "cpu"), [Source(str(file))])
    assert result.error is None and result.score is not None and np.isfinite(result.score)


def test_ten_bit_hdr_is_read(untrained: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "hdr.mkv"), "w") as container:
        stream = container.add_stream("libx265", rate=8, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        stream.codec_context.color_primaries, stream.codec_context.color_trc = 9, 16  # BT.2020, PQ
        for frame in textured(1, frames=6, side=64)[0, :, :, :48]:
            picture = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p10le")))
        container.mux(stream.encode(None))
    (result,) = score_files(TrainedReward.load(untrained, "cpu"), [Source(str(tmp_path / "hdr.mkv"))])
    assert result.error is None, result.error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_says_so(untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "closed.mp4").touch(mode=0)
    results = list(score_files(TrainedReward.load(untrained, "cpu"), sources([str(tmp_path)])))
    assert ["permission denied" in str(result.error) for result in results] == [True, True]


def test_a_refusing_system_call_becomes_a_line(
    untrained: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *arguments: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    scorer = TrainedReward.load(untrained, "cpu")
    monkeypatch.setattr(Path, "open", refuse)
    (result,) = score_files(scorer, [Source(str(folder / "a.mp4"))])
    assert result.error == f"{folder / 'a.mp4'}: permission denied"


class Watching:
    """Notes the batches it is given and how many clips are decoded while it scores."""

    def __init__(self, batch: int) -> None:
        self.input_spec = InputSpec(64, batch)
        self.batches: list[tuple[int, ...]] = []
        self.prompts: list[str] = []

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        return self.rate(frames, fps, prompts).score

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        self.batches.append(tuple(frames.shape[:2]))
        self.prompts += prompts or []
        means = frames.float().mean((1, 2, 3, 4))
        return Rating(means, torch.zeros_like(means), {})


def test_clips_of_one_shape_are_scored_together_and_the_order_stays(folder: Path) -> None:
    names = [str(folder / name) for name in ("c.mp4", "a.mp4", "b.mp4", "c.mp4", "a.mp4", "a.mp4", "c.mp4")]
    reward = Watching(4)
    found = list(score_files(reward, sources(names), list("1234567")))
    assert [result.path for result in found] == names
    assert [result.error is None for result in found] == [True, True, False, True, True, True, True]
    assert reward.batches == [(2, 6), (1, 5), (2, 5), (1, 6)]
    assert reward.prompts == list("142567")
    alone = {name: next(iter(score_files(Watching(1), [Source(name)]))).score for name in set(names)}
    assert [result.score for result in found] == [alone[name] for name in names]


def test_one_clip_that_the_reward_refuses_does_not_cost_its_batch(folder: Path) -> None:
    class Picky(Watching):
        def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
            if "bad" in (prompts or []):
                raise InputError("a text it will not read")
            return super().rate(frames, fps, prompts)

    names = [str(folder / "a.mp4")] * 3
    found = list(score_files(Picky(4), sources(names), ["x", "bad", "y"]))
    assert [result.error for result in found] == [None, f"{names[1]}: a text it will not read", None]


def test_a_figure_that_is_not_finite_is_an_error_and_not_a_score(folder: Path) -> None:
    class Lost(Watching):
        def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
            nothing = torch.full((len(frames),), float("nan"))
            return Rating(nothing, nothing, {})

    (result,) = score_files(Lost(4), [Source(str(folder / "a.mp4"))])
    assert result.score is None and "no finite score" in str(result.error)


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Decoding that takes 50 ms and yields a clip of 1 MB; the list holds when each began."""
    began: list[float] = []
    lock = threading.Lock()

    def slow(path: Path, name: str, spec: InputSpec) -> Clip:
        with lock:
            began.append(time.monotonic())
        time.sleep(0.05)
        return Clip(torch.zeros(4, 3, 256, 342, dtype=torch.uint8), 8.0)

    monkeypatch.setattr(scoring, "_read", slow)
    yield began


def test_decoding_runs_beside_scoring(decoding: list[float]) -> None:
    class Slow(Watching):
        def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
            time.sleep(0.05 * len(frames))
            return super().rate(frames, fps, prompts)

    began = time.monotonic()
    assert len(list(score_files(Slow(1), [Source("x")] * 12))) == 12
    # One after the other would be 1.2 s; side by side 0.65 s.
    assert time.monotonic() - began < 1.0


def test_only_a_few_clips_wait(decoding: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the scoring and long the list, decoding stays a few clips ahead; and a full batch is not
    waited for when what waits is large."""
    monkeypatch.setattr(scoring, "WAITING_BYTES", 3 * 2**20)
    reward, seen = Watching(64), 0
    for _ in score_files(reward, [Source("x")] * 60):
        seen += 1
        # Those being scored, those that wait behind them, those being decoded.
        assert len(decoding) <= seen + 2 * 4 + scoring.WORKERS + 1
    assert seen == 60 and max(count for count, _ in reward.batches) <= 4


def test_a_long_large_video_is_decoded_small_and_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bounds at a smaller scale: 40 frames of 640 x 480 against 100 thousand pixels and 16 frames."""
    file = raw_video(tmp_path / "long.avi", 40, 480, 640, "mpeg4")
    monkeypatch.setattr(scoring, "CLIP_PIXELS", 100_000)
    monkeypatch.setattr(scoring, "LONGEST", 16)
    clip = scoring._read(file, "long", InputSpec(360, 1))
    assert clip.num_frames == 16
    assert 0.8 * 100_000 < clip.num_frames * clip.height * clip.width <= 1.05 * 100_000
    assert clip.width / clip.height == pytest.approx(4 / 3, rel=0.03)


def test_objects_and_prefixes_of_a_store(untrained: Path, folder: Path, store: Store) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        storage.write_file(folder / name, f"s3://bucket/runs/clips/{name}")
    scorer = TrainedReward.load(untrained, "cpu")
    found = list(
        score_files(
            scorer, sources(["s3://bucket/runs/clips", "s3://bucket/runs/clips/c.mp4", "s3://bucket/no.mp4"])
        )
    )
    assert [result.path for result in found] == [
        *(f"s3://bucket/runs/clips/{name}" for name in ("a.mp4", "b.mp4", "c.mp4", "c.mp4")),
        "s3://bucket/no.mp4",
    ]
    local = [
        result.score
        for result in score_files(scorer, sources([str(folder / name) for name in ("a.mp4", "c.mp4")]))
    ]
    assert [found[place].score for place in (0, 2, 3)] == [local[0], local[1], local[1]]
    assert str(found[1].error).startswith("s3://bucket/runs/clips/b.mp4: truncated")
    assert str(found[4].error).startswith("s3://bucket/no.mp4: nothing there")


def test_places_of_no_known_kind_are_a_line_each() -> None:
    (found,) = sources(["http://host/x.mp4"])
    assert found.problem is not None and "http://" in found.problem and "allowed" in found.problem


def test_a_reader_who_has_read_enough_ends_it_quietly(untrained: Path, folder: Path) -> None:
    arguments = [sys.executable, "-m", "components.reward", "score", "--reward", str(untrained)]
    process = subprocess.Popen(
        [*arguments, *[str(folder / "a.mp4")] * 40], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    assert process.wait(60) == 141 and "Traceback" not in said, said
