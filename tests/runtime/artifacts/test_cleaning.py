from __future__ import annotations

import sqlite3
from pathlib import Path

from components.runtime.artifacts import workspace
from components.runtime.artifacts.cleaning import clean
from components.runtime.artifacts.publish import publish
from components.runtime.params import StepParams


def make(out: Path, step: str) -> None:
    with publish(out, step=step, params=StepParams()) as place:
        (place.dir / "deep").mkdir()
        (place.dir / "deep" / "file").write_text("x")
        place.write_metrics({"figure": 1.0})


def test_only_what_the_project_made_goes(tmp_path: Path) -> None:
    for step in ("corpus", "reward", "alignment"):
        make(tmp_path / "artifacts" / step, step)
    unfinished = tmp_path / "artifacts" / "generator.partial"
    (unfinished / ".checkpoints").mkdir(parents=True)
    (unfinished / workspace.IDENTITY).write_text('{"step": "generator", "params": "", "inputs": {}}')
    sqlite3.connect(tmp_path / "mlflow.db").execute("CREATE TABLE experiments (name TEXT)")
    theirs = {
        "artifacts/footage/mine.mp4": "a",
        "artifacts/notes.txt": "b",
        "artifacts/inputs/mine.json": '{"corpus.prompts": null}',
        "artifacts/reward/notes.txt": "c",
        "artifacts/old.partial/thesis.tex": "d",
        "thesis.partial/thesis.tex": "e",
        "build/release.tar": "f",
        "build/bom/notes.json": "g",
        "mlruns/notes.txt": "h",
        "mlruns/2024/holiday.jpg": "k",
        ".mypy_cache/mine": "i",
        "other.egg-info/PKG-INFO": "j",
        "params.yaml": "run: {}",
    }
    ours = {
        "artifacts/inputs/corpus.json": '{"corpus.prompts": null}',
        "mlruns/0/0123456789abcdef0123456789abcdef/artifacts/a.txt": "x",
        "build/bom/control-cpu.cdx.json": '{"bomFormat": "CycloneDX"}',
        ".ruff_cache/CACHEDIR.TAG": "Signature",
        ".ruff_cache/entry": "x",
    }
    for name, text in (theirs | ours).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    reward = {f"artifacts/reward/{name}" for name in ("manifest.json", "metrics.json", "deep/file")}
    kept = clean(tmp_path)
    assert {name: (tmp_path / name).read_text() for name in theirs} == theirs
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == set(theirs) | reward
    assert {path.relative_to(tmp_path).as_posix() for path in kept} == {
        "artifacts/footage",
        "artifacts/inputs",
        "artifacts/notes.txt",
        "artifacts/reward",
        "artifacts/old.partial",
        "thesis.partial",
        "build/bom/notes.json",
        "mlruns/notes.txt",
        "mlruns/2024",
        ".mypy_cache",
    }


def test_nothing_is_left_of_a_folder_with_nothing_else(tmp_path: Path) -> None:
    make(tmp_path / "artifacts" / "corpus", "corpus")
    assert clean(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
