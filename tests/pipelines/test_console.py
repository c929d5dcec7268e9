"""`onlinevpo`: all commands under one name, with the exit codes and error lines of the module commands."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from components.runtime.errors import GateRefused, InputError, Interrupted
from pipelines import console
from pipelines.steps import STEPS

MODULES = [
    "components",
    *(f"components.{step.name}" for step in STEPS),
    "pipelines",
    "pipelines.stack",
    "images",
]


def callbacks(app: typer.Typer) -> Iterator[Callable[..., Any]]:
    """The functions behind all verbs of an app, those of its groups included."""
    yield from (verb.callback for verb in app.registered_commands if verb.callback)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from callbacks(group.typer_instance)


def call(
    *arguments: str, program: str = "pipelines.console", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("module", MODULES)
def test_every_verb_of_a_module_command_is_there(module: str) -> None:
    reachable = set(callbacks(console.command()))
    assert set(callbacks(import_module(f"{module}.__main__").app)) <= reachable


def test_one_page_of_help_shows_the_whole_product_without_heavy_imports() -> None:
    script = """
import resource, sys
from pipelines.console import main
try:
    main(["--help"])
finally:
    heavy = {"torch", "kfp", "mlflow", "kubernetes"} & sys.modules.keys()
    print(heavy or "light", resource.getrusage(resource.RUSAGE_SELF).ru_utime, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported, seconds = done.stderr.split()
    assert imported == "light" and float(seconds) < 1.0
    lines = done.stdout.splitlines()[1:]
    assert len(lines) < 40 and not [line for line in lines if line.endswith("...")], "no line is cut short"
    for name in ("run", "promote", "compile", "submit", "watch", "lint", "local", "stack", "show", "params",
                 "clean", "images", *(step.name for step in STEPS)):  # fmt: skip
        assert any(line.startswith(f"  {name} ") for line in lines), name
    assert "digests" not in done.stdout, "what only dvc.yaml calls is hidden"


@pytest.mark.parametrize(
    ("arguments", "program", "same"),
    [
        (("evaluation", "totals", "--results", "nowhere"), "components.evaluation", 1),
        (("reward", "score", "nowhere"), "components.reward", 1),
        (("corpus", "run", "--set", "corpus.nothing=1"), "components.corpus", 1),
        (("lint", "nowhere.yaml"), "pipelines", 0),
        (("params", "--set", "run.sed=1"), "components", 0),
    ],
)
def test_error_lines_and_codes_are_those_of_the_module_command(
    arguments: tuple[str, ...], program: str, same: int
) -> None:
    ours, theirs = call(*arguments), call(*arguments[same:], program=program)
    assert ours.returncode == theirs.returncode == 2
    assert ours.stderr == theirs.stderr and ours.stderr.startswith("error: ")


@pytest.mark.parametrize("error", [None, InputError("x"), GateRefused("x"), Interrupted("x")])
def test_exit_codes_pass_through(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def lint(pipeline: Path) -> None:
        if error:
            raise error

    monkeypatch.setattr("pipelines.lint.lint.lint_or_refuse", lint)
    with pytest.raises(SystemExit) as ended:
        console.main(["lint", "pipeline.yaml"])
    assert ended.value.code == getattr(error, "exit_code", 0)
    assert capsys.readouterr().err == (f"{error.label}: x\n" if error else "")  # type: ignore[attr-defined]


def test_usage_names_the_program_as_it_was_called() -> None:
    assert "Usage: python -m pipelines.console reward score" in call("reward", "score", "--help").stdout
    script = "import sys; from pipelines.console import main; sys.argv = ['/bin/onlinevpo', 'stack']; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "Usage: onlinevpo stack [OPTIONS] COMMAND" in done.stderr
    assert call("reward").returncode == 2, "a group alone shows its help"


@pytest.mark.parametrize(
    "verb", [("lint", "x.yaml"), ("gitops", "x.yaml", "-o", "y"), ("watch", "id", "--host", "h")]
)
def test_without_the_extra_a_verb_says_so_in_one_line(
    verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("pipelines.", "kfp"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kfp", None)
    monkeypatch.setitem(sys.modules, "kfp_server_api", None)
    with pytest.raises(SystemExit) as ended:
        import_module("pipelines.console").main(list(verb))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: this command needs the extra `pipelines` (no module kfp")
    assert line.endswith("pip install 'onlinevpo[pipelines]'")


def test_the_script_is_declared(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"onlinevpo": "pipelines.console:main"}


def test_run_wants_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no dvc\.yaml in this folder"):
        console.run()


def test_run_reads_all_params_before_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(Path(words[0]).name)
        return subprocess.CompletedProcess(words, 0)

    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text("registry: {no_such_key: 1}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.subprocess, "run", run)
    with pytest.raises(InputError, match=r"unknown key `registry\.no_such_key`"):
        console.run()
    assert calls == ["git"]


@pytest.mark.parametrize("code", [0, 1])
def test_run_is_dvc_repro_and_then_the_results(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append([Path(words[0]).name, *words[1:]])
        return subprocess.CompletedProcess(words, code if "repro" in words else 0)

    page = tmp_path / "artifacts/registry/report.html"
    page.parent.mkdir(parents=True)
    page.touch()
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.subprocess, "run", run)
    if code:
        with pytest.raises(typer.Exit) as ended:
            console.run()
        assert ended.value.exit_code == code
    else:
        console.run()
        assert "artifacts/registry/report.html" in capsys.readouterr().out
    after = [
        ["python", "-m", "components.registry", "show"],
        ["python", "-m", "components.evaluation", "table"],
    ]
    assert calls == [["git", "rev-parse", "--git-dir"], ["dvc", "repro"], *([] if code else after)]
