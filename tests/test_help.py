"""Every command's help shows what its source says, whole."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click
import pytest
import typer.main

MODULES = (
    "components.__main__",
    "components.alignment.__main__",
    "components.corpus.__main__",
    "components.evaluation.__main__",
    "components.generator.__main__",
    "components.registry.__main__",
    "components.reward.__main__",
    "components.reward.labels.fit_calibration",
    "images.__main__",
    "pipelines.__main__",
    "pipelines.exit_handler.report",
    "pipelines.container.entrypoint",
    "pipelines.stack.__main__",
    "pipelines.trainjob.__main__",
)


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for part, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {part}")


@pytest.mark.parametrize("module", MODULES)
def test_help_is_shown_as_it_is_written(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    app = importlib.import_module(module).app
    for name, command in commands(typer.main.get_command(app), module):
        with pytest.raises(SystemExit) as end:
            command.main(["--help"], prog_name=name, terminal_width=400, max_content_width=400)
        assert end.value.code == 0
        shown = "".join(capsys.readouterr().out.split())
        texts = [command.help or "", *(getattr(p, "help", "") or "" for p in command.params)]
        for text in texts:
            assert "".join(text.split()) in shown, f"{name}: {text}"


def test_every_app_is_tested(repository: object) -> None:
    from pathlib import Path

    root = Path(str(repository))
    found = {
        ".".join(file.relative_to(root).with_suffix("").parts)
        for folder in ("components", "images", "pipelines")
        for file in (root / folder).rglob("*.py")
        if "\napp = " in file.read_text()
    }
    assert found == set(MODULES)
