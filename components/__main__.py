"""For the whole tree: `python -m components schema | params | clean`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
import yaml

from components.runtime.outputs import check_file
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

    found = places.digests(resolved(load_params(params_file or default_params(), overrides or ())))
    if out is None:
        print(json.dumps(found, indent=1))
        return
    for section, content in found.items():
        _write(Path(out) / f"{section}.json", content, f"{section}.")


@app.command()
def headline(
    step: Annotated[str, typer.Argument(help="name of a step")],
    artifact: Annotated[Path, typer.Argument(help="its artifact's folder")],
    out: Annotated[Path, typer.Argument(help="JSON file to write")],
) -> None:
    """Write the figures of a step that people compare between runs; its metrics.json holds all of them."""
    from components.headline import figures_of

    _write(out, figures_of(step, artifact))


def _write(file: Path, content: Mapping[str, object], prefix: str = "") -> None:
    """Write figures by name, in the place of such figures only: names that begin with ``prefix``."""

    def ours(path: Path) -> bool:
        found = json.loads(path.read_bytes())
        flat = isinstance(found, dict) and not any(isinstance(one, dict | list) for one in found.values())
        return flat and all(name.startswith(prefix) for name in found)

    check_file(file, "what this command writes", ours)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@app.command()
def clean() -> None:
    """Remove what the commands made in this folder: artifacts, tracking, caches; name what else is kept."""
    from components.runtime.cleaning import clean as remove

    for path in remove(Path.cwd()):
        print(f"kept, not made by this project: {path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main(app)
