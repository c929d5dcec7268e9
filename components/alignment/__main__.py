"""python -m components.alignment run | ledger show | ledger rescore"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from components.alignment.params import AlignmentParams
from components.runtime.step import check_out, command_app, main, report, step_app

app = step_app(
    "alignment",
    AlignmentParams,
    "components.alignment.step:run",
    inputs=("corpus", "generator", "reward"),
    optional=("judge", "ledger"),
    help="Align the generator to the reward by DPO: online, offline, or on the best of N.",
)
ledger_app = command_app("Show the pair ledger, or score it by another reward.")
app.add_typer(ledger_app, name="ledger")

LedgerArgument = Annotated[
    str, typer.Argument(metavar="DIR", help="a finished alignment or rescore: a folder or s3:// URI")
]


@ledger_app.command("show")
def show(
    ledger: LedgerArgument = "artifacts/alignment",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print what became of every candidate: verdicts, gaps, rewards by version, most used prompts."""
    from components.alignment.ledger.reader import LedgerReader
    from components.alignment.ledger.show import summary, table

    figures = summary(LedgerReader.open(ledger))
    print(json.dumps(figures, indent=2) if as_json else table(figures))


@ledger_app.command("replay", hidden=True, deprecated=True)
@ledger_app.command("rescore")
def rescore(
    out: Annotated[str, typer.Option("--out", help="where to publish the new ledger: a folder or s3:// URI")],
    reward: Annotated[str, typer.Option("--reward", help="the reward to score by: a folder or s3:// URI")],
    ledger: LedgerArgument = "artifacts/alignment",
    generator: Annotated[
        str, typer.Option("--generator", help="the base that sampled the candidates: a folder or s3:// URI")
    ] = "artifacts/generator",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda")] = "auto",
) -> None:
    """Score a ledger's clips by another reward; publish how the two agree, and a ledger to train on."""
    from components.alignment.ledger import rescore as module
    from components.runtime.compute.devices import configure_determinism, configure_threads

    check_out(out, "ledger", (ledger, reward, generator))
    configure_threads()
    configure_determinism()
    result = module.rescore(ledger, generator=generator, reward=reward, out=out, device=device)
    report("ledger rescore", result.out, result.metrics)


if __name__ == "__main__":
    main(app)
