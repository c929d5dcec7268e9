"""What a person gets for a mistake: one clear line, the right exit code, nothing half written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import run_command as command


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus of world clips."""
    folder = tmp_path_factory.mktemp("made")
    sets = [f"corpus.world_clips.{split}={count}" for split, count in (("train", 4), ("val", 2), ("test", 2))]
    flags = [part for value in ["corpus.sources=[world]", *sets] for part in ("--set", value)]
    done = command("corpus", "run", *flags, "--out", "corpus", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "corpus"


@pytest.mark.parametrize(
    ("step", "setting", "words"),
    [
        (
            "alignment",
            "alignment.num_generations=1",
            ("alignment.num_generations", "1", "greater than or equal to 2"),
        ),
        (
            "alignment",
            "alignment.num_generation=4",
            ("alignment.num_generation", "did you mean `num_generations`"),
        ),
        ("alignment", "alignments.candidates=4", ("alignments",)),
        ("alignment", "reward.training.steps=1", ("has no effect on step alignment",)),
        ("reward", "reward.training.steps=many", ("reward.training.steps", "many")),
        ("generator", "generator.sampling.guidance=.5", ("generator.sampling.guidance", "0.5")),
        ("evaluation", "run.device=tpu", ("run.device", "tpu", "cpu")),
    ],
)
def test_params(tmp_path: Path, step: str, setting: str, words: tuple[str, ...]) -> None:
    refused(command(step, "run", "--set", setting, cwd=tmp_path), *words)
    assert list(tmp_path.iterdir()) == []


def test_missing_upstream(tmp_path: Path, repository: Path) -> None:
    words = ("artifacts/corpus", "python -m components.corpus run")
    refused(command("alignment", "run", cwd=tmp_path), *words)
    # And in an interpreter of its own, where what the imports say would be seen.
    own = subprocess.run(
        [sys.executable, "-m", "components.alignment", "run"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    refused(own, *words)
    assert list(tmp_path.iterdir()) == []


def test_altered_upstream(tmp_path: Path, corpus: Path) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    victim = next((tmp_path / "corpus" / "clips").glob("train.safetensors"))
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(bytes(content))
    done = command("generator", "run", "--corpus", "corpus", "--out", "generator", cwd=tmp_path)
    refused(done, "clips/train.safetensors")
    assert not list(tmp_path.glob("generator*"))


def test_wrong_artifact(tmp_path: Path, corpus: Path) -> None:
    done = command("reward", "run", "--corpus", str(corpus), "--generator", str(corpus), cwd=tmp_path)
    refused(done, "made by step corpus")


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("no/such/folder", ("no/such/folder", "hub id")),
        ("somebody/some-model", ("somebody/some-model", "HF_HUB_OFFLINE")),
        ("empty", ("model_index.json",)),
        ("other", ("StableDiffusionPipeline", "WanPipeline")),
    ],
)
def test_base_that_cannot_be_used(tmp_path: Path, corpus: Path, base: str, words: tuple[str, ...]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline"})
    )
    done = command(
        "generator", "run", "--corpus", str(corpus), "--set", f"generator.base={base}", "--out", "g",
        cwd=tmp_path, environment={"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    refused(done, *words)
    assert not list(tmp_path.glob("g*"))


def test_unwritable_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(command("corpus", "run", "--out", "file/corpus", cwd=tmp_path), "file/corpus")
    assert (tmp_path / "file").read_text() == "in the way"


def test_folder_of_broken_videos(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video")
    done = command("corpus", "run", "--set", f"corpus.footage={folder}", "--out", "corpus", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "empty.mp4" in done.stderr and "text.mp4" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("corpus*"))
