"""Params for people: `python -m components schema` and `python -m components params`."""

from __future__ import annotations

import json

import yaml

from components.runtime.step import ParamsOption, SetOption, command_app, default_params, main

app = command_app("The tree of params that every step reads.")


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
