"""For the whole tree: `python -m components schema | params | clean`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Annotated

import typer
import yaml

from components.runtime.artifacts.outputs import check_file
from components.runtime.errors import InputError
from components.runtime.io.files import write_atomically
from components.runtime.io.storage import is_remote, local_path
from components.runtime.step import ParamsOption, SetOption, command_app, default_params, main

app = command_app("The tree of params that every step reads, and the folder that the steps write to.")


@app.command()
def schema() -> None:
    """Print the JSON Schema of params.yaml."""
    from components.params import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command()
def params(params_file: ParamsOption = None, overrides: SetOption = None) -> None:
    """Print every param as it would be read, defaults and overrides applied."""
    from components.params import load_params, resolved

    tree = resolved(load_params(params_file or default_params(), overrides or ()))
    print(yaml.safe_dump(tree, sort_keys=False), end="")


@app.command()
def digests(
    out: Annotated[
        str | None, typer.Option("--out", help="folder for one file per section, instead of printing")
    ] = None,
    params_file: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Print the digest of each file or folder that params name: prompts, footage, base, weights, gate."""
    from components import places
    from components.params import load_params, resolved

    by_section = places.digests(resolved(load_params(params_file or default_params(), overrides or ())))
    if out is None:
        print(json.dumps(by_section, indent=1))
        return
    if is_remote(out):
        raise InputError(f"--out {out}: digests are written to a local folder")
    files = {local_path(out) / f"{section}.json": content for section, content in by_section.items()}
    for file, content in files.items():
        _check(file, set(content))
    for file, content in files.items():
        _write(file, content)


@app.command()
def headline(
    step: Annotated[str, typer.Argument(help="name of a step")],
    artifact: Annotated[Path, typer.Argument(help="its artifact's folder")],
    out: Annotated[Path, typer.Argument(help="JSON file to write")],
) -> None:
    """Write the figures of a step that people compare between runs; its metrics.json holds all of them."""
    from components.headline import HEADLINE, figures_of

    figures = figures_of(step, artifact)
    _check(out, set(HEADLINE[step]))
    _write(out, figures)


def _check(file: Path, names: Set[str]) -> None:
    """Refuse to write over anything but figures of these names.

    Raises:
        InputError: there is something else.
    """

    def ours(path: Path) -> bool:
        content = json.loads(path.read_bytes())
        return isinstance(content, dict) and set(content) <= names and not path.is_symlink()

    if os.path.lexists(file.parent) and not file.parent.is_dir():
        raise InputError(f"{file.parent}: cannot be written: it is no folder")
    check_file(file, "what this command writes", ours)


def _write(file: Path, content: Mapping[str, object]) -> None:
    write_atomically(file, json.dumps(content, indent=1, sort_keys=True) + "\n")


@app.command()
def clean() -> None:
    """Remove what the commands made in this folder: artifacts, tracking, caches; name what else is kept."""
    from components.runtime.artifacts.cleaning import clean as remove

    for path in remove(Path.cwd()):
        print(f"kept, not made by this project: {path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main(app)
