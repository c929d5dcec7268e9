"""For the whole tree: `python -m components schema | params | clean`."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

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
def clean() -> None:
    """Remove what the commands made in this folder: artifacts, tracking, caches; name what else is kept."""
    from components.runtime.cleaning import clean as remove

    for path in remove(Path.cwd()):
        print(f"kept, not made by this project: {path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main(app)
