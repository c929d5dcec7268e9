"""Drawing a suite's videos: names, seeds, resuming, foreign videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from components.evaluation.__main__ import app
from components.evaluation.vbench import commands
from components.evaluation.vbench.sample import sample_suite, suite_requests
from components.evaluation.vbench.sample_record import read_record, record_file, write_record
from components.evaluation.vbench.suites import Suite, SuiteEntry
from components.runtime.artifacts.artifact import Artifact
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError, Interrupted
from components.video.codec import read_video
from tests.evaluation.conftest import make

SUITE = Suite("test", (SuiteEntry("a cat.", ("color",)), SuiteEntry("a dog", ("temporal_flickering",))), 2, 3)


class Grey:
    """Draws one grey level, made of the seed; notes what it was asked for."""

    def __init__(self, stop_after: int = 99) -> None:
        self.asked: list[tuple[str, int]] = []
        self.stop_after = stop_after

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        self.asked += zip(prompts, seeds, strict=True)
        if len(self.asked) > self.stop_after:
            raise KeyboardInterrupt
        clips = [torch.full((4, 3, 32, 32), seed % 200, dtype=torch.uint8) for seed in seeds]
        return torch.stack(clips), torch.zeros(len(seeds), 1)


def draw(sampler: Grey, folder: Path, seed: int = 0, model: str = "m", suite: Suite = SUITE) -> int:
    return sample_suite(sampler, suite_requests(suite, seed), folder, 8.0, 2, model)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.mp4"))


def test_names_seeds_and_the_note(tmp_path: Path) -> None:
    assert draw(Grey(), tmp_path) == 5
    assert names(tmp_path) == ["a cat.-0.mp4", "a cat.-1.mp4", "a dog-0.mp4", "a dog-1.mp4", "a dog-2.mp4"]
    record = read_record(tmp_path)
    assert len({line["seed"] for line in record.values()}) == 5
    clip = read_video(tmp_path / "a dog-2.mp4")
    assert clip.fps == 8.0
    assert abs(float(clip.frames.float().mean()) - record["a dog-2.mp4"]["seed"] % 200) < 3
    other = {one.seed for one in suite_requests(SUITE, 1)}
    assert not other & {line["seed"] for line in record.values()}


def test_a_videos_seed_does_not_depend_on_what_else_is_asked_for() -> None:
    alone = suite_requests(Suite("other", SUITE.entries[1:], 2, 1), 0)
    assert alone[0] in suite_requests(SUITE, 0)


def test_what_is_there_is_not_drawn_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        draw(Grey(stop_after=2), tmp_path)
    assert len(names(tmp_path)) == 2
    again = Grey()
    assert draw(again, tmp_path) == 3
    assert len(again.asked) == 3
    (tmp_path / "a dog-1.mp4").write_bytes(b"half a fi")
    third = Grey()
    assert draw(third, tmp_path) == 1
    assert third.asked == [
        (one.prompt, one.seed) for one in suite_requests(SUITE, 0) if (one.prompt, one.index) == ("a dog", 1)
    ]
    assert draw(Grey(), tmp_path) == 0


def test_a_stop_comes_after_a_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopping(Grey):
        def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
            stops[0].requested = True
            return super().sample(prompts, seeds)

    stops: list[StopSignal] = []
    real = StopSignal.__enter__

    def entered(self: StopSignal) -> StopSignal:
        stops.append(self)
        return real(self)

    monkeypatch.setattr(StopSignal, "__enter__", entered)
    with pytest.raises(Interrupted):
        draw(Stopping(), tmp_path)
    assert len(names(tmp_path)) == 2


def test_another_models_videos_or_seeds_are_refused(tmp_path: Path) -> None:
    draw(Grey(), tmp_path)
    with pytest.raises(InputError, match="another model"):
        draw(Grey(), tmp_path, model="other")
    with pytest.raises(InputError, match="another seed"):
        draw(Grey(), tmp_path, seed=1)


def test_videos_of_unknown_origin_are_kept_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(Grey(), tmp_path)
    record_file(tmp_path).unlink()
    (tmp_path / "a cat.-0.mp4").unlink()
    assert draw(Grey(), tmp_path) == 1
    name = record_file(tmp_path).name
    assert f"4 videos that {name} does not know are kept" in capsys.readouterr().err
    assert list(read_record(tmp_path)) == ["a cat.-0.mp4"]


def vbench_finds(folder: Path, prompt: str) -> list[str]:
    """VBench's way to find a prompt's videos: the suffix is that of whatever file comes first."""
    there = sorted(path.name for path in folder.iterdir())
    found = []
    for first in there:  # os.listdir has no order
        suffix = Path(first).suffix
        found.append([f"{prompt}-{index}{suffix}" in there for index in range(2)])
    return ["all" if all(one) else "none" for one in found]


def test_nothing_but_videos_lies_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    draw(Grey(), folder)
    assert set(vbench_finds(folder, "a cat.")) == {"all"}
    assert (tmp_path / "videos.samples.jsonl").is_file()


def test_a_note_of_an_earlier_release_is_read_and_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    draw(Grey(), folder)
    record = read_record(folder)
    record_file(folder).rename(folder / "samples.jsonl")
    assert read_record(folder) == record
    with pytest.raises(InputError, match="another model"):
        draw(Grey(), folder, model="other")
    assert (folder / "samples.jsonl").is_file()
    assert draw(Grey(), folder) == 0
    assert "moved to" in capsys.readouterr().err
    assert not (folder / "samples.jsonl").exists() and read_record(folder) == record
    (folder / "samples.jsonl").write_text('{"file": "mine", "note": "not of this program"}\n')
    draw(Grey(), folder)
    assert (folder / "samples.jsonl").is_file()


def test_a_prompts_videos_are_drawn_from_its_rewritten_text(tmp_path: Path) -> None:
    """Under the original's name and with its seeds."""
    longer = {"a cat.": "x" * 1400, "a dog": "x" * 1399 + "y"}
    sampler, asked = Grey(), suite_requests(SUITE, 0)
    assert sample_suite(sampler, asked, tmp_path / "v", 8.0, 2, "m", augmented=longer) == 5
    assert names(tmp_path / "v") == [f"{one.prompt}-{one.index}.mp4" for one in asked]
    assert sampler.asked == [(longer[one.prompt], one.seed) for one in asked]
    line = read_record(tmp_path / "v")["a dog-0.mp4"]
    assert (line["prompt"], line["augmented"]) == ("a dog", longer["a dog"])
    with pytest.raises(InputError, match="from another text"):
        draw(Grey(), tmp_path / "v")


def test_odd_prompts_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colon is no protocol, a slash no folder, a dot hides nothing; `score` knows the prompts again."""
    generator = make(tmp_path / "generator", "generator", {"generator.json": json.dumps({"fps": 12.0})})
    sampler = Grey()
    monkeypatch.setattr(commands, "open_sampler", lambda generator, device, lora: sampler)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    odd = [
        "Zoom: in",
        '../../etc/passwd / "quote" 100% a?b*c|d<e>f',
        "走る",
        ".hidden",
        "a cat -5",
        "w " * 400 + "w",
    ]
    (tmp_path / "suite.jsonl").write_text("\n".join(json.dumps({"prompt": one}) for one in odd))
    (tmp_path / "longer.json").write_text(json.dumps([f"{one}, in great detail" for one in odd]))
    arguments = ["sample", "--videos", ".", "--suite", str(tmp_path / "suite.jsonl"), "--samples", "1"]
    arguments += ["--augmented", str(tmp_path / "longer.json")]
    arguments += ["--generator", str(generator), "--set", "run.device=cpu"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert [prompt for prompt, _ in sampler.asked] == [f"{one}, in great detail" for one in odd]
    assert len(names(here)) == len(list(here.iterdir())) == len(odd)
    score = ["score", "--videos", ".", "--out", str(tmp_path / "r"), "--dimension", "temporal_flickering"]
    shown = CliRunner().invoke(app, [*score, "--set", "run.device=cpu"])
    assert shown.exit_code == 0, shown.output
    info = json.loads((tmp_path / "r" / "here_full_info.json").read_text())
    assert sorted(entry["prompt_en"] for entry in info) == sorted(odd)
    assert not any((tmp_path / place).exists() for place in ("etc", "here/etc"))


def test_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make(tmp_path / "generator", "generator", {"generator.json": json.dumps({"fps": 12.0})})

    def sampler(generator: Artifact, device: torch.device, lora: Path | None) -> Grey:
        assert lora is None
        return Grey()

    monkeypatch.setattr(commands, "open_sampler", sampler)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\n")
    arguments = ["sample", "--videos", str(tmp_path / "v"), "--suite", str(prompts), "--samples", "2"]
    arguments += ["--generator", str(generator), "--set", "run.device=cpu"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "4 videos drawn, 0 were there already" in shown.output
    assert read_record(tmp_path / "v")["a cat-1.mp4"]["fps"] == 12.0
    assert "0 videos drawn, 4 were there" in CliRunner().invoke(app, arguments).output
    score = ["score", "--videos", str(tmp_path / "v"), "--out", str(tmp_path / "r"), "--suite", str(prompts)]
    score += ["--samples", "2", "--dimension", "temporal_flickering", "--set", "run.device=cpu"]
    shown = CliRunner().invoke(app, score)
    assert shown.exit_code == 0, shown.output
    results = json.loads((tmp_path / "r" / "v_eval_results.json").read_text())
    seeds = {line["seed"] for line in read_record(tmp_path / "v").values()}
    assert {one["seed"] for one in results["temporal_flickering"][1]} == seeds


def test_a_file_in_the_place_of_the_note_that_is_none_stays(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    file = record_file(folder)
    file.write_text('{"id": 1, "label": "mine"}\n')
    with pytest.raises(InputError, match="something else than the note of drawn videos"):
        write_record(folder, [{"file": "a-0.mp4", "seed": 1, "model": "m"}])
    assert file.read_text() == '{"id": 1, "label": "mine"}\n'
    file.unlink()
    for _ in range(2):
        write_record(folder, [{"file": "a-0.mp4", "seed": 1, "model": "m"}])
    assert list(read_record(folder)) == ["a-0.mp4"]
