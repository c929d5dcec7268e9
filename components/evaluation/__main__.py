"""python -m components.evaluation run | table | totals"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from components.evaluation.params import EvaluationParams
from components.evaluation.totals import QUALITY, SEMANTIC, read_scores, totals
from components.runtime.step import main, step_app

app = step_app(
    "evaluation",
    EvaluationParams,
    "components.evaluation.step:run",
    inputs=("corpus", "generator", "reward", "alignment"),
    help="Compare the aligned generator with its base on held-out prompts.",
)


@app.command("table")
def show_table(
    evaluation: Annotated[
        str, typer.Option("--evaluation", help="a finished evaluation: folder or s3:// URI")
    ] = "artifacts/evaluation",
) -> None:
    """Print the base / aligned table of a finished evaluation and where its report page is."""
    from components.runtime.artifacts import open_artifact

    artifact = open_artifact(evaluation, step="evaluation")
    print(artifact.file("table.txt").read_text(encoding="utf-8"), end="")
    print(f"report page: {artifact.file('report.html')}")


@app.command("totals")
def show_totals(
    results: Annotated[
        Path, typer.Option("--results", help="VBench results file ({name}_eval_results.json)")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print VBench's scaled scores and totals; a total with a missing dimension is not formed."""
    scores, otherwise = read_scores(results)
    found = totals(scores)
    if as_json:
        print(json.dumps(asdict(found) | {"measured_otherwise": otherwise}, indent=2))
        return
    for name in QUALITY + SEMANTIC:
        if name in scores:
            print(f"{name:24}{100 * scores[name]:8.2f}  scaled {100 * found.scaled[name]:8.2f}")
        elif name in otherwise:
            print(f"{name:24}     n/a  {otherwise[name]}")
        else:
            print(f"{name:24}     n/a  not in the file")
    for name, value in (("quality", found.quality), ("semantic", found.semantic), ("total", found.total)):
        print(f"{name:24}{'     n/a' if value is None else f'{100 * value:8.2f}'}")


if __name__ == "__main__":
    main(app)
