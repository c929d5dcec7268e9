"""The verbs that look after weights: list, fetch, verify."""

from __future__ import annotations

from typing import Annotated

import typer

from components.runtime.errors import InputError
from components.runtime.step import command_app

weights_app = command_app("The pretrained models' weights: list, fetch, verify.")

NamesArgument = Annotated[list[str] | None, typer.Argument(help="names of weights; all of them if none")]


@weights_app.command("list")
def list_weights(
    at: Annotated[str, typer.Option("--at", help="also say what is there: a folder or s3:// prefix")] = "",
) -> None:
    """Print every set of weights: size, licence, origin, the dimensions that need it."""
    from components.evaluation.dimensions.catalogue import catalogue
    from components.evaluation.models import WEIGHTS, ModelStore

    store = ModelStore(at)
    for name, weights in WEIGHTS.items():
        users = [
            key for key, providers in catalogue().items() if any(name in one.opens(True) for one in providers)
        ]
        state = "" if not at else "  here" if store.missing(name) is None else "  missing"
        print(f"{name:12}{weights.megabytes:6} MB  {weights.licence:14}{weights.title}{state}")
        print(f"{'':12}from {weights.origin}")
        instead = f"; in place of VBench's {weights.instead_of}" if weights.instead_of else ""
        print(f"{'':12}for {', '.join(users)}{instead}")
    print(f"{'together':12}{sum(weights.megabytes for weights in WEIGHTS.values()):6} MB")


@weights_app.command("fetch")
def fetch_weights(
    to: Annotated[str, typer.Option("--to", help="a folder or s3:// prefix")],
    names: NamesArgument = None,
    origin: Annotated[
        str, typer.Option("--origin", help="another hub repository for the one set named")
    ] = "",
) -> None:
    """Fetch weights as safetensors, for a machine without network to read from.

    A set that cannot be fetched does not keep the others from being fetched.
    """
    from components.evaluation.models.fetch import fetch, known

    chosen = known(names or [])
    if origin and len(chosen) != 1:
        raise InputError("--origin goes with the name of one set of weights")
    failed = []
    for name in chosen:
        try:
            card = fetch(name, to, origin)
        except InputError as error:
            failed.append(f"{name}: {error}")
            print(f"{name:12}not fetched: {error}")
            continue
        size = sum(entry["bytes"] for entry in card["files"].values())
        print(f"{name:12}{size / 1e6:8.0f} MB  {card['licence']}  {card['origin']}", flush=True)
    if failed:
        raise InputError(f"{len(failed)} of {len(chosen)} not fetched: {'; '.join(failed)}")


@weights_app.command("verify")
def verify_weights(
    at: Annotated[str, typer.Option("--to", "--at", help="a folder or s3:// prefix")],
    names: NamesArgument = None,
) -> None:
    """Compare every fetched file with its recorded size and SHA-256."""
    from components.evaluation.models.fetch import known, verify
    from components.runtime.tables import columns

    checked = [verify(name, at) for name in known(names or [])]
    print("\n".join(columns([(one.name, one.state, one.about) for one in checked], left=range(3))))
    faults = [one.name for one in checked if one.state == "damaged" or (names and one.state == "missing")]
    if faults:
        raise InputError(f"{at}: {', '.join(faults)} cannot be used; fetch again")
    if all(one.state == "missing" for one in checked):
        raise InputError(f"{at}: no weights there")
