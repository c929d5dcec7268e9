"""Every command that writes refuses a place with something else in it, before any work, and leaves it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from components.runtime.step import main

FOLDERS = {
    "corpus run": ("components.corpus", "run --out {}"),
    "generator run": ("components.generator", "run --out {}"),
    "generator train": ("components.generator", "train --out {}"),
    "reward run": ("components.reward", "run --out {}"),
    "reward import": ("components.reward", "import --model owner/name --out {}"),
    "reward combine": ("components.reward", "combine some/reward=1 --out {}"),
    "reward export": ("components.reward", "export --out {}"),
    "alignment run": ("components.alignment", "run --out {}"),
    "ledger rescore": ("components.alignment", "ledger rescore some/ledger --reward some/reward --out {}"),
    "evaluation run": ("components.evaluation", "run --out {}"),
    "weights fetch": ("components.evaluation", "weights fetch raft --to {}"),
    "registry run": ("components.registry", "run --out {}"),
    "stack up": ("pipelines.stack", "up --folder {}"),
}
FILES = {
    "evaluation score": ("components.evaluation", "score --videos . --name out --out results"),
    "reward distortions": ("components.reward", "distortions --out {}"),
    "pipelines run-local": ("pipelines", "run-local --runner host --root ."),
    "pipelines compile": ("pipelines", "compile --images images.yaml -o {}"),
    "pipelines gitops": ("pipelines", "gitops pipeline.yaml -o {}"),
    "images build": ("images", "build -o {}"),
    "images bom": ("images", "bom --to ."),
}
NAMES = {
    "evaluation score": "results/out_eval_results.json",
    "images bom": "control-cpu.cdx.json",
    "pipelines run-local": "pipeline.yaml",
}


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def refused(module: str, arguments: str, place: Path, capsys: pytest.CaptureFixture[str]) -> str:
    before = tree(Path.cwd())
    app = importlib.import_module(f"{module}.__main__").app
    with pytest.raises(SystemExit) as end:
        main(app, [word.format(place) for word in arguments.split()])
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    assert tree(Path.cwd()) == before
    line = said.strip().splitlines()[-1]
    assert line.startswith("error: "), said
    return line


@pytest.mark.parametrize("command", FOLDERS)
def test_folders(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "out", tmp_path / "out" / "raft"):
        place.mkdir(exist_ok=True)
        (place / "thesis.tex").write_text("years of work")
    line = refused(*FOLDERS[command], tmp_path / "out", capsys)
    assert "not empty" in line and str(tmp_path / "out") in line
    if command != "weights fetch":
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        assert "the working folder" in refused(*FOLDERS[command], Path("."), capsys)


@pytest.mark.parametrize("command", FILES)
def test_files(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = NAMES.get(command, "out")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work")
    assert name in refused(*FILES[command], tmp_path / name, capsys)
