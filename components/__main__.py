"""Params for people: `python -m components schema` and `python -m components params`."""

from __future__ import annotations

import json

import typer
import yaml

from components.runtime.step import ParamsOption, SetOption, default_params, main

app = typer.Typer(
    help="The tree of params that every step reads.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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


if __name__ == "__main__":
    main(app)
