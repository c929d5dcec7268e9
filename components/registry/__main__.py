"""python -m components.registry run | show | promote | rollback"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from components.registry.params import RegistryParams
from components.runtime.errors import InputError
from components.runtime.step import load_params, main, step_app

app = step_app(
    "registry",
    RegistryParams,
    "components.registry.step:run",
    inputs=("alignment", "evaluation", "generator", "reward"),
    help="Register the aligned generator; promote it when it passes the gate.",
)
ParamsFile = Annotated[
    Path | None, typer.Option("--params", help="YAML file of params [default: params.yaml if there is one]")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override one param")
]


@app.command()
def show(params: ParamsFile = None, overrides: Overrides = None) -> None:
    """List the versions of the registered model, their aliases, decisions and reasons."""
    from components.registry.models import PREFIX, Models

    name = load_params(RegistryParams, "registry", params, overrides).model
    versions = Models(name).versions()
    if not versions:
        print(f"{name}: no version is registered")
    for row in versions:
        tags = {key.removeprefix(PREFIX): value for key, value in row["tags"].items()}
        print(f"{name} version {row['version']}  {row['created']}  {', '.join(row['aliases']) or '-'}")
        print(f"  {tags.get('decision', 'undecided')}: {tags.get('headline', '')}")
        if tags.get("promoted_because"):
            replaced = tags.get("replaced", "none")
            print(f"  promoted {tags['promoted']}: {tags['promoted_because']}; replaced {replaced}")
        for reason in filter(None, tags.get("reasons", "").split("; ")):
            print(f"  - {reason}")


@app.command()
def promote(
    version: Annotated[str, typer.Option("--version", help="number of the version")],
    reason: Annotated[str, typer.Option("--reason", help="why, kept with the version")],
    params: ParamsFile = None,
    overrides: Overrides = None,
) -> None:
    """Make a version the champion by hand, whatever the gate said of it; the reason is recorded."""
    from components.registry.models import CHAMPION, Models

    if not reason.strip():
        raise InputError("--reason is empty: say why this version is promoted past the gate")
    name = load_params(RegistryParams, "registry", params, overrides).model
    models = Models(name)
    models.promote(version, models.aliases().get(CHAMPION), f"by hand: {reason.strip()}")
    print(f"version {version} of {name} is the champion")


@app.command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", help="why, kept with the version")],
    params: ParamsFile = None,
    overrides: Overrides = None,
) -> None:
    """Make the previous champion the champion again."""
    from components.registry.models import CHAMPION, PREVIOUS, Models

    name = load_params(RegistryParams, "registry", params, overrides).model
    models = Models(name)
    aliases = models.aliases()
    if PREVIOUS not in aliases:
        raise InputError(f"{name} has no previous champion to go back to")
    models.promote(aliases[PREVIOUS], aliases.get(CHAMPION), f"rolled back: {reason.strip()}")
    print(f"version {aliases[PREVIOUS]} of {name} is the champion again")


if __name__ == "__main__":
    main(app)
