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
AsJson = Annotated[bool, typer.Option("--json", help="as JSON")]


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

    given = load_params(RegistryParams, "registry", params, overrides)
    rules = load_gate(gate or given.gate)
    promotions = _promotions(given)
    number = promotions.generator.resolve(version)
    decision = promotions.promote(number, rules, note.strip())
    for check in decision.checks:
        print(check.line)
    if decision.note:
        print(f"note: {decision.note}")
    _tell(promotions)
    name = f"version {number} of {given.model}"
    if decision.outcome == "refused":
        raise GateRefused(f"{name}: {'; '.join(decision.reasons)}")
    print(f"{name} is the champion{' already' if decision.outcome == 'unchanged' else ''}")


@app.command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", help="why, kept in the record")],
    params: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Make the champion before this one the champion again; each rollback goes back by one more."""
    if not reason.strip():
        raise InputError("--reason is empty: say why the champion is rolled back")
    given = load_params(RegistryParams, "registry", params, overrides)
    promotions = _promotions(given)
    before, now = promotions.roll_back(reason.strip())
    _tell(promotions)
    print(f"{given.model}: rolled back from version {before} to version {now}, which is the champion again")


@app.command()
def show(as_json: AsJson = False, params: ParamsOption = None, overrides: SetOption = None) -> None:
    """List the versions with their aliases and decisions, and the record of promotions."""
    from dataclasses import asdict

    from components.runtime.tracking.retry import place

    given = load_params(RegistryParams, "registry", params, overrides)
    promotions = _promotions(given)
    versions = promotions.generator.versions()
    entries = promotions.generator.record.read()[1]
    if as_json:
        print(json.dumps({"versions": versions, "record": [asdict(entry) for entry in entries]}, indent=1))
        return
    if not versions:
        print(f"{given.model} at {place()}: no version is registered")
    for row in versions:
        tags = row["tags"]
        print(f"{given.model} version {row['version']}  {row['created']}  {', '.join(row['aliases']) or '-'}")
        print(f"  {tags.get('decision', 'undecided')}: {tags.get('headline', '')}")
        for reason in filter(None, tags.get("reasons", "").split("; ")):
            print(f"  - {reason}")
    for entry in entries:
        effect = "" if entry.effective or entry.action == "refused" else " (no effect: another came first)"
        print(f"record {entry.number}: {entry.at} {entry.words}{effect}, by {entry.by}: {entry.why}")
    for words in promotions.present().gone:
        print(f"warning: {words}")
    for words in promotions.astray():
        print(f"warning: {words}; the next promotion or rollback mends it")


@app.command()
def verify(
    version: VersionOption = "champion",
    params: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Check every digest of a version; name what differs, and exit 3 if anything does."""
    from components.registry import verify as checking

    given = load_params(RegistryParams, "registry", params, overrides)
    promotions = _promotions(given)
    number = promotions.generator.resolve(version)
    found = checking.verify(promotions, number)
    for finding in found:
        if finding.state != "same":
            print(finding.line)
    counts = {state: sum(one.state == state for one in found) for state in ("same", "differs", "absent")}
    print(
        f"version {number} of {given.model}: {counts['same']} as recorded, {counts['differs']} differ, "
        f"{counts['absent']} not to be had from here"
    )
    if counts["differs"]:
        names = [one.what for one in found if one.state == "differs"]
        raise GateRefused(
            f"{len(names)} of {len(found)} differ from what was recorded: {', '.join(names[:5])}"
        )


@app.command()
def diff(
    one: Annotated[str, typer.Argument(help="version or alias")] = "champion",
    other: Annotated[str, typer.Argument(help="version or alias")] = "candidate",
    params: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Tell in what two versions differ: where they came from, and what they scored."""
    from components.registry.versions.diff import lines

    given = load_params(RegistryParams, "registry", params, overrides)
    generator = _promotions(given).generator
    for line in lines(generator, generator.resolve(one), generator.resolve(other)):
        print(line)


def _tell(promotions: Promotions) -> None:
    for note in promotions.notes:
        print(f"note: {note}")


def _promotions(given: RegistryParams) -> Promotions:
    from components.registry.promote import Promotions
    from components.registry.versions.store import Models

    return Promotions(Models(given.model), Models(given.reward_model))


if __name__ == "__main__":
    main(app)
