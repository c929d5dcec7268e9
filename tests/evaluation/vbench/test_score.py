"""Whole folders: hand-made clips with known answers, faults, resuming, rates, one process and several."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.models import ModelStore
from components.evaluation.params import EvaluationParams
from components.evaluation.vbench import output
from components.evaluation.vbench import score as scoring
from components.evaluation.vbench.commands import score_videos
from components.evaluation.vbench.files import VBenchResult, VideoResult, read_results
from components.evaluation.vbench.output import notes
from components.evaluation.vbench.score import Settings, score
from components.evaluation.vbench.suites import Suite, load_suite
from components.runtime.errors import InputError

STEP = 51  # grey levels; a fifth of the range


def write(file: Path, frames: Any, fps: float = 8.0) -> Path:
    """Write (T, H, W) grey levels or (T, H, W, 3) without loss, so that what is measured is known exactly."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.asarray(frames, dtype=np.uint8)
    if pictures.ndim == 3:
        pictures = pictures[..., None].repeat(3, axis=3)
    with av.open(str(file), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = pictures.shape[2], pictures.shape[1], "bgr0"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return file


def levels(*values: int, size: int = 16) -> Any:
    return np.stack([np.full((size, size), value) for value in values])


def sliding(number: int = 9, size: int = 48, speed: float = 3.0) -> Any:
    """A bright soft bar that moves to the right at an even speed, px a frame."""
    x = np.arange(size)[None, :]
    return np.stack(
        [(40 + 180 * np.exp(-(((x - 6 - speed * t) / 4.0) ** 2))).repeat(size, axis=0) for t in range(number)]
    )


def suite_of(folder: Path, *dimensions: str, samples: int = 1) -> Suite:
    prompts = folder.parent / "prompts.txt"
    prompts.write_text("blink\nstill\nslow bar\n")
    return load_suite(str(prompts), samples).only(list(dimensions))


def measured(suite: Suite, folder: Path, store: ModelStore | None = None, **settings: Any) -> scoring.Scores:
    return score(suite, folder, store or ModelStore(), Settings(**settings), folder.parent / ".keep")


def test_pixel_dimensions_of_hand_made_clips(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    write(folder / "blink-0.mkv", levels(0, STEP, 0, STEP, 0))  # every step changes a fifth of the range
    write(folder / "still-0.mkv", levels(90, 90, 90, 90, 90))
    write(folder / "slow bar-0.mkv", sliding(9, speed=3.0))  # 3 px a step, 1.1 px is the threshold at 48 px
    names = ("temporal_flickering", "motion_smoothness", "dynamic_degree")
    found = measured(suite_of(folder, *names), folder)
    values = {
        name: {Path(one.path).name[:-6]: one.value for one in result.videos}
        for name, result in found.results.items()
    }
    assert values["temporal_flickering"]["blink"] == pytest.approx(0.8, abs=1e-6)
    assert values["temporal_flickering"]["still"] == 1.0
    # Both neighbours of a dropped frame are alike, so it is rebuilt as they are: an error of a fifth.
    assert values["motion_smoothness"]["blink"] == pytest.approx(0.8, abs=1e-6)
    assert values["motion_smoothness"]["still"] == 1.0
    assert values["motion_smoothness"]["slow bar"] > 0.99
    assert values["dynamic_degree"]["still"] == 0.0
    assert values["dynamic_degree"]["slow bar"] == 1.0
    for name in names:
        assert found.results[name].score == pytest.approx(np.mean(list(values[name].values())))


@pytest.mark.parametrize("declared", [8.0, 12.0, 25.0])
def test_the_containers_rate_changes_nothing_where_the_models_rate_is_known(
    tmp_path: Path, declared: float
) -> None:
    folder = tmp_path / "videos"
    write(folder / "slow bar-0.mkv", sliding(9), declared)
    write(folder / "still-0.mkv", levels(9, 9, 9, 9), declared)
    names = ("temporal_flickering", "motion_smoothness", "dynamic_degree")
    found = measured(suite_of(folder, *names), folder, fps=8.0)
    values = {name: [one.value for one in result.videos] for name, result in found.results.items()}
    assert values["dynamic_degree"] == [0.0, 1.0]
    change = np.abs(np.diff(sliding(9).astype(np.uint8).astype(float), axis=0)).mean()
    assert values["temporal_flickering"] == pytest.approx([1.0, 1 - change / 255], abs=1e-6)
    # Without it, the file's rate is believed by the one dimension that is about time, and by no other.
    free = measured(suite_of(folder, *names), folder)
    for name in ("temporal_flickering", "motion_smoothness"):
        assert free.results[name] == found.results[name]
    stride = free.results["dynamic_degree"].videos[0].more["stride"]
    assert stride == round(declared / 8)


def test_a_frame_more_changes_only_what_looks_at_it(tmp_path: Path) -> None:
    """Nine frames or ten: motion smoothness rebuilds the same four, the tenth has no frame after it."""
    folder = tmp_path / "videos"
    clip = sliding(9)
    write(folder / "still-0.mkv", clip)
    write(folder / "slow bar-0.mkv", np.concatenate([clip, levels(255, size=48)]))
    found = measured(suite_of(folder, "motion_smoothness", "temporal_flickering"), folder)
    nine, ten = (one.value for one in found.results["motion_smoothness"].videos)
    assert nine == ten
    nine, ten = (one.value for one in found.results["temporal_flickering"].videos)
    assert ten < nine


def test_frames_are_what_is_averaged_where_the_definition_says_so(tmp_path: Path, tiny_weights: Path) -> None:
    folder = tmp_path / "videos"
    rng = np.random.default_rng(0)
    write(folder / "blink-0.mkv", rng.integers(0, 256, (3, 40, 40)))
    write(folder / "still-0.mkv", np.repeat(rng.integers(0, 256, (1, 40, 40)), 7, axis=0))
    suite = suite_of(folder, "background_consistency", "temporal_flickering")
    found = measured(suite, folder, ModelStore(str(tiny_weights)))
    three, seven = found.results["background_consistency"].videos
    assert (three.more["cnt_per_video"], seven.more["cnt_per_video"]) == (2, 6)
    assert found.results["background_consistency"].score == pytest.approx(
        (2 * three.value + 6 * seven.value) / 8
    )
    one, other = found.results["temporal_flickering"].videos
    assert found.results["temporal_flickering"].score == pytest.approx((one.value + other.value) / 2)


def test_faults_are_named_and_counted_and_the_rest_is_measured(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    write(folder / "blink-0.mkv", levels(0, STEP, 0))
    whole = write(folder / "still-0.mkv", levels(*[7] * 40, size=64)).read_bytes()
    (folder / "still-0.mkv").write_bytes(whole[: len(whole) // 2])
    write(folder / "slow bar-1.mkv", levels(0, 0, 0))
    write(folder / "Slow  bar-0.mkv", levels(0, 0, 0))
    suite = suite_of(folder, "temporal_flickering", "subject_consistency")
    settings = Settings()
    found = measured(suite, folder)
    assert found.results["temporal_flickering"].score == pytest.approx(0.8, abs=1e-6)
    assert len(found.results["temporal_flickering"].videos) == 1
    assert "DINO ViT-B/16" in found.unavailable["subject_consistency"]
    assert "weights fetch dino" in found.unavailable["subject_consistency"]
    assert {(one.kind, one.name) for one in found.problems} == {
        ("broken", "still-0.mkv"),
        ("missing", "slow bar-0.mp4"),
        ("extra", "slow bar-1.mkv"),
        ("misnamed", "Slow  bar-0.mkv"),
    }
    lines = notes(suite, found, settings)
    assert lines[0]["problems"] == {"missing": 1, "extra": 1, "misnamed": 1, "broken": 1}
    assert lines[0]["total"] is None
    assert [line["name"] for line in lines if line["kind"] == "broken"] == ["still-0.mkv"]
    text = output.as_text(suite, found)
    assert "still-0.mkv" in text
    assert "n/a" in text


def test_results_beside_the_videos_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    write(folder / "blink-0.mkv", levels(0, STEP, 0))
    with pytest.raises(InputError, match="that is the folder of the videos"):
        score_videos(EvaluationParams(), str(folder), str(folder), f"{folder}/../videos", "", [], None, 0.0)
    assert [path.name for path in folder.iterdir()] == ["blink-0.mkv"]


def test_the_notes_have_no_official_total_of_our_variants(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    write(folder / "blink-0.mkv", levels(0, STEP, 0))
    suite = suite_of(folder, "temporal_flickering")
    found = measured(suite, folder)
    found.results = {name: VBenchResult(0.5, (VideoResult("a", 0.5),)) for name in QUALITY + SEMANTIC}
    found.used = dict.fromkeys(QUALITY + SEMANTIC, found.used["temporal_flickering"])
    whole = notes(suite, found, Settings())[0]
    assert whole["total"] is not None
    found.results["temporal_flickering"] = VBenchResult(0.5, (VideoResult("a", 0.5),), variant="ours")
    whole = notes(suite, found, Settings())[0]
    assert (whole["quality"], whole["total"]) == (None, None)
    assert "1 videos  our variant" in output.as_text(suite, found)


def test_a_video_too_short_for_a_dimension_is_said_to_be_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    write(folder / "blink-0.mkv", levels(0, STEP, 0))
    write(folder / "still-0.mkv", levels(0))
    suite = suite_of(folder, "temporal_flickering")
    found = measured(suite, folder)
    assert found.left_out == {
        "temporal_flickering": {"still-0.mkv": "too short: 1 frames, of 2 that are needed"}
    }
    line = next(
        one for one in notes(suite, found, Settings()) if one.get("dimension") == "temporal_flickering"
    )
    assert list(line["left_out"]) == ["still-0.mkv"]


def test_nothing_to_measure_is_one_clear_line(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    with pytest.raises(InputError, match="none of the 3 prompts"):
        measured(suite_of(folder, "temporal_flickering"), folder)
    write(folder / "blink-0.mkv", levels(0, STEP, 0))
    with pytest.raises(
        InputError, match=r"no dimension of suite prompts\.txt can be measured: subject_consistency"
    ):
        measured(suite_of(folder, "subject_consistency"), folder)


def test_the_published_variant_of_flickering_counts_static_videos_only(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most five static videos of a prompt, by file name: -10 comes before -2."""
    from components.evaluation.models.raft import Raft

    def moved(self: Raft, first: torch.Tensor, second: torch.Tensor, border: bool = False) -> torch.Tensor:
        assert border  # VBench's filter counts the padding as well
        way = (first.float() - second.float()).abs().mean()  # a stand-in for the flow: how far levels go
        return way.expand(1, 2, *first.shape[-2:]) / 2**0.5

    monkeypatch.setattr(Raft, "flow", moved)
    folder = tmp_path / "videos"
    for index in range(11):
        write(folder / f"blink-{index}.mkv", levels(0, 200 if index == 1 else index % 3, 0))
    info = tmp_path / "suite.json"
    info.write_text(json.dumps([{"prompt_en": "blink", "dimension": ["temporal_flickering"]}]))
    suite, store = load_suite(str(info), samples=11), ModelStore(str(tiny_weights))
    ours = measured(suite, folder, store)
    assert len(ours.results["temporal_flickering"].videos) == 11
    assert ours.results["temporal_flickering"].variant == "ours"
    theirs = measured(suite, folder, store, compat=True)
    names = [one.name for one in theirs.results["temporal_flickering"].videos]
    # At 16 px: 3 * 16 / 256 = 0.19 px; 3 frames allow round(6 / 16) = 0 faster steps: only still ones pass.
    assert names == [f"blink-{index}.mkv" for index in (0, 3, 6, 9)]
    assert theirs.results["temporal_flickering"].score == 1.0
    assert ours.results["temporal_flickering"].score < 1.0


def test_a_stopped_run_measures_only_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "videos"
    for name, values in (("blink", (0, STEP, 0)), ("still", (5, 5, 5)), ("slow bar", (1, 2, 3))):
        write(folder / f"{name}-0.mkv", levels(*values))
    suite = suite_of(folder, "temporal_flickering")
    whole = measured(suite, folder)
    real, calls = scoring._measure, []

    def once(task: Any, *rest: Any) -> Any:
        calls.append(task.path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(task, *rest)

    monkeypatch.setattr(scoring, "_measure", once)
    with pytest.raises(KeyboardInterrupt):
        measured(suite, folder)
    again = measured(suite, folder)
    assert calls == ["blink-0.mkv", "still-0.mkv", "slow bar-0.mkv", "slow bar-0.mkv"]
    assert again.results == whole.results
    assert not (tmp_path / ".keep").exists()


def test_other_videos_are_not_taken_for_those_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "videos"
    write(folder / "blink-0.mkv", levels(0, STEP, 0))
    monkeypatch.setattr(scoring, "drop_kept", lambda keep: None)
    suite = suite_of(folder, "temporal_flickering")
    first = measured(suite, folder).results["temporal_flickering"].score
    write(folder / "blink-0.mkv", levels(0, 2 * STEP, 0))
    assert measured(suite, folder).results["temporal_flickering"].score < first - 0.1


def _in_process(rank: int, size: int, port: int, arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    score_videos(*arguments)


def in_processes(size: int, port: int, arguments: tuple[Any, ...]) -> None:
    """Forked, to spare each of them the seconds of importing; torch has one thread and no pool."""
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(target=_in_process, args=(rank, size, port, arguments)) for rank in range(size)
    ]
    for one in started:
        one.start()
    for one in started:
        one.join(240)
    assert [one.exitcode for one in started] == [0] * size


def contents(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


NAMES = ("model_eval_results.json", "model_full_info.json", "model_notes.jsonl")


def the_same_from_one_two_and_three(
    root: Path, suite: Path, weights: Path, port: int, dimensions: list[str], compat: str = ""
) -> dict[str, bytes]:
    """The three files that one process writes about root/videos, after comparing them with those of two and
    of three.
    """
    values = {"weights": str(weights), "compat": compat, "run": {"device": "cpu"}}
    params = EvaluationParams.model_validate(values)
    found = []
    for size in (1, 2, 3):
        out = root / f"out{size}"
        videos = str(root / "videos")
        in_processes(size, port, (params, str(suite), videos, str(out), "model", dimensions, 2, 0.0))
        assert sorted(path.name for path in out.iterdir()) == sorted(NAMES)
        found.append(contents(out, NAMES))
    assert found[0] == found[1] == found[2]
    return found[0]


def noisy(file: Path, frames: int, rng: np.random.Generator) -> None:
    base = rng.integers(0, 200, (1, 32, 40, 3))
    write(file, base + rng.integers(0, 9, (frames, 32, 40, 3)))


@pytest.mark.filterwarnings("ignore")
def test_one_two_and_three_processes_write_the_same_files(
    tmp_path: Path, tiny_weights: Path, free_port: int
) -> None:
    folder = tmp_path / "videos"
    rng = np.random.default_rng(0)
    for place, prompt in enumerate(("blink", "still", "slow bar")):
        for index in range(2):
            noisy(folder / f"{prompt}-{index}.mkv", 3 + place, rng)
    (folder / "still-1.mkv").write_bytes(b"broken")
    dimensions = ["subject_consistency", "background_consistency", "temporal_flickering", "aesthetic_quality"]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("blink\nstill\nslow bar\n")
    found = the_same_from_one_two_and_three(tmp_path, prompts, tiny_weights, free_port, dimensions)
    results = json.loads(found["model_eval_results.json"])
    assert set(results) == set(dimensions)
    assert len(results["temporal_flickering"][1]) == 5
    raw = read_results(tmp_path / "out1" / "model_eval_results.json")
    assert set(raw) == set(dimensions)
    assert not any(one.method for one in raw.values())
    lines = [json.loads(line) for line in found["model_notes.jsonl"].splitlines()]
    assert lines[0]["problems"]["broken"] == 1
    info = json.loads(found["model_full_info.json"])
    assert [one["prompt_en"] for one in info] == ["blink", "still", "slow bar"]
    assert [len(one["video_list"]) for one in info] == [2, 2, 2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compat", ["", "vbench"])
def test_all_sixteen_dimensions_do_not_depend_on_the_processes(
    tmp_path: Path, tiny_weights: Path, free_port: int, compat: str
) -> None:
    facts = {
        "object_class": {"object": "car"},
        "multiple_objects": {"object": "car and person"},
        "color": {"color": "red"},
        "spatial_relationship": {
            "spatial_relationship": {
                "object_a": "car",
                "object_b": "person",
                "relationship": "on the left of",
            }
        },
        "scene": {"scene": {"scene": "beach"}},
        "appearance_style": {"appearance_style": "oil painting"},
    }
    entries = [
        {"prompt_en": "A person is marching", "dimension": [*QUALITY, "human_action", "temporal_style"]},
        {"prompt_en": "a red car", "dimension": [*facts, "overall_consistency"], "auxiliary_info": facts},
    ]
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps(entries))
    rng = np.random.default_rng(0)
    for entry in entries:
        for index in range(2):
            noisy(tmp_path / "videos" / f"{entry['prompt_en']}-{index}.mkv", 4 + index, rng)
    found = the_same_from_one_two_and_three(tmp_path, suite, tiny_weights, free_port, [], compat)
    results, lines = json.loads(found["model_eval_results.json"]), found["model_notes.jsonl"].splitlines()
    silent = {one["dimension"] for one in map(json.loads, lines) if "unavailable" in one}
    # As published, flickering drops what moves, and colour what has none said of it.
    assert silent <= ({"temporal_flickering", "color"} if compat else set())
    assert set(results) | silent == set(QUALITY + SEMANTIC)
