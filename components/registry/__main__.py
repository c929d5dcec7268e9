"""python -m components.registry run | promote | rollback | show | verify | diff"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from components.registry.params import RegistryParams
from components.runtime.errors import GateRefused, InputError
from components.runtime.step import ParamsOption, SetOption, load_params, main, step_app

if TYPE_CHECKING:
    from components.registry.promote import Promotions

app = step_app(
    "registry",
    RegistryParams,
    "components.registry.step:run",
    inputs=("alignment", "evaluation", "generator", "reward"),
    help="Register the aligned generator; promote it when it passes the gate.",
)
VersionOption = Annotated[str, typer.Option("--version", help="number of a version, or an alias")]


@app.command()
def promote(
    version: VersionOption = "candidate",
    gate: Annotated[
        str | None, typer.Option("--gate", metavar="FILE|URI", help="gate file [default: registry.gate]")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="kept with the decision")] = "",
    params: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Put a version to the gate against the champion; make it the champion if it passes, else exit 3."""
    from components.runtime.gate.thresholds import load_gate

    settings = load_params(RegistryParams, "registry", params, overrides)
    rules = load_gate(gate or settings.gate)
    promotions = _promotions(settings)
    number = promotions.generator.resolve(version)
    decision = promotions.promote(number, rules, note.strip())
    for check in decision.checks:
        print(check.line)
    for text in (*filter(None, [decision.note]), *promotions.notes):
        print(f"note: {text}")
    name = f"version {number} of {settings.model}"
    if decision.outcome == "refused":
        raise GateRefused(f"{name}: {'; '.join(decision.reasons)}")
    print(f"{name} is the champion{' already' if decision.outcome == 'unchanged' else ''}")


@app.command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", help="why; kept in the promotion log")],
    params: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Make the champion before this one the champion again; each rollback goes back by one more."""
    if not reason.strip():
        raise InputError("--reason is empty: say why the champion is rolled back")
    settings = load_params(RegistryParams, "registry", params, overrides)
    promotions = _promotions(settings)
    before, now = promotions.roll_back(reason.strip())
    for note in promotions.notes:
        print(f"note: {note}")
    print(f"{settings.model}: rolled back from version {before} to version {now}, the champion again")


@app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
    params: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """List the versions with their aliases and decisions, and the promotion log."""
    from dataclasses import asdict

    from components.runtime.tracking.retry import place

    settings = load_params(RegistryParams, "registry", params, overrides)
    promotions = _promotions(settings)
    versions = promotions.generator.versions()
    entries = promotions.generator.log.read()[1]
    if as_json:
        print(json.dumps({"versions": versions, "record": [asdict(entry) for entry in entries]}, indent=1))
        return
    if not versions:
        print(f"{settings.model} at {place()}: no version is registered")
    for row in versions:
        tags, aliases = row["tags"], ", ".join(row["aliases"]) or "-"
        print(f"{settings.model} version {row['version']}  {row['created']}  {aliases}")
        print(f"  {tags.get('decision', 'undecided')}: {tags.get('headline', '')}")
        for reason in filter(None, tags.get("reasons", "").split("; ")):
            print(f"  - {reason}")
    for entry in entries:
        effect = "" if entry.effective or entry.action == "refused" else " (no effect: another came first)"
        print(f"log {entry.number}: {entry.at} {entry.words}{effect}, by {entry.by}: {entry.why}")
    for words in promotions.current().deleted:
        print(f"warning: {words}")
    for words in promotions.stale_aliases():
        print(f"warning: {words}; the next promotion or rollback moves it")


@app.command()
def verify(
    version: VersionOption = "champion", params: ParamsOption = None, overrides: SetOption = None
) -> None:
    """Check every digest of a version; name what differs, and exit 3 if anything does."""
    from components.registry import verify as checking

    settings = load_params(RegistryParams, "registry", params, overrides)
    promotions = _promotions(settings)
    number = promotions.generator.resolve(version)
    items = checking.verify(promotions, number)
    for item in items:
        if item.state != "same":
            print(item.line)
    same, differ, absent = (
        [item.what for item in items if item.state == state] for state in ("same", "differs", "absent")
    )
    print(
        f"version {number} of {settings.model}: {len(same)} as recorded, {len(differ)} differ, "
        f"{len(absent)} not available from here"
    )
    if differ:
        names = ", ".join(differ[:5])
        raise GateRefused(f"{len(differ)} of {len(items)} differ from what was recorded: {names}")


@app.command()
def diff(
    one: Annotated[str, typer.Argument(help="version or alias")] = "champion",
    other: Annotated[str, typer.Argument(help="version or alias")] = "candidate",
    params: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Show in what two versions differ: where they came from, and what they scored."""
    from components.registry.versions.diff import lines

    model = _promotions(load_params(RegistryParams, "registry", params, overrides)).generator
    for line in lines(model, model.resolve(one), model.resolve(other)):
        print(line)


def _promotions(settings: RegistryParams) -> Promotions:
    from components.registry.promote import Promotions
    from components.registry.versions.store import RegisteredModel

    return Promotions(RegisteredModel(settings.model), RegisteredModel(settings.reward_model))


if __name__ == "__main__":
    main(app)
