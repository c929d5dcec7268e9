"""python -m components.evaluation run | table | sample | score | totals | compare | weights"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.params import EvaluationParams
from components.evaluation.vbench.files import read_results
from components.evaluation.vbench.totals import file_totals, totals_as_json, totals_as_text
from components.evaluation.weights_cli import weights_app
from components.runtime.errors import InputError
from components.runtime.step import ParamsOption, SetOption, load_params, main, step_app

app = step_app(
    "evaluation",
    EvaluationParams,
    "components.evaluation.step:run",
    inputs=("corpus", "generator", "reward", "alignment"),
    help="Compare the aligned generator with its base on held-out prompts; measure videos as VBench does.",
)
app.add_typer(weights_app, name="weights")

SuiteOption = Annotated[
    str,
    typer.Option(
        "--suite",
        help="vbench; VBench's .whl or .json; prompts as .txt, .json, .jsonl, .csv or .yaml; or a folder "
        "of videos",
    ),
]
SamplesOption = Annotated[
    int | None, typer.Option("--samples", min=1, help="videos of each prompt [default: 5, flickering 25]")
]
DimensionsOption = Annotated[
    list[str] | None, typer.Option("--dimension", help="only this one; may be repeated")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command("table")
def show_table(
    evaluation: Annotated[
        str, typer.Option("--evaluation", help="a finished evaluation: folder or s3:// URI")
    ] = "artifacts/evaluation",
) -> None:
    """Print the base / aligned table of a finished evaluation and where its report page is."""
    from components.runtime.artifacts.artifact import open_artifact

    artifact = open_artifact(evaluation, step="evaluation")
    print(artifact.file("table.txt").read_text(encoding="utf-8"), end="")
    print(f"report page: {artifact.file('report.html')}")


@app.command("sample")
def sample(
    videos: Annotated[str, typer.Option("--videos", help="folder for the videos; what is there is kept")],
    suite: SuiteOption = "vbench",
    generator: Annotated[
        str, typer.Option("--generator", help="the generator artifact")
    ] = "artifacts/generator",
    alignment: Annotated[
        str, typer.Option("--alignment", help="an alignment artifact: its weights in the generator")
    ] = "",
    dimension: DimensionsOption = None,
    samples: SamplesOption = None,
    augmented: Annotated[
        str,
        typer.Option(
            "--augmented",
            help="sample from these rewritten prompts, one for each of the suite's in its order, under the "
            "originals' names",
        ),
    ] = "",
    params_file: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Sample a suite's videos under VBench's names; several processes (torchrun) share the work."""
    from components.evaluation.vbench.commands import sample_videos

    params = load_params(EvaluationParams, "evaluation", params_file, overrides)
    sample_videos(params, suite, videos, generator, alignment, dimension or [], samples, augmented)


@app.command("score")
def score(
    videos: Annotated[str, typer.Option("--videos", help="flat folder of videos under VBench's names")],
    out: Annotated[str, typer.Option("--out", help="folder for the result files")],
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            help="vbench; VBench's .whl or .json; a list of prompts [default: what the folder holds, with "
            "the prompts it was drawn for where they were noted]",
        ),
    ] = "",
    name: Annotated[str, typer.Option("--name", help="of the model [default: the folder's]")] = "",
    dimension: DimensionsOption = None,
    samples: SamplesOption = None,
    fps: Annotated[
        float,
        typer.Option(
            "--fps",
            min=0,
            show_default=False,
            help="the model's frames per second [default: as noted, or declared]",
        ),
    ] = 0.0,
    params_file: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Measure a folder of videos; writes {name}_eval_results.json, _full_info.json and _notes.jsonl."""
    from components.evaluation.vbench.commands import score_videos

    params = load_params(EvaluationParams, "evaluation", params_file, overrides)
    score_videos(params, suite or videos, videos, out, name, dimension or [], samples, fps)


@app.command("totals")
def show_totals(
    results: Annotated[
        Path, typer.Option("--results", help="VBench results file ({name}_eval_results.json)")
    ],
    as_json: JsonOption = False,
) -> None:
    """Print VBench's scaled scores and totals; a total with a missing dimension is not formed.

    A total that can be compared with published ones has all its dimensions measured in VBench's way. One with
    our variants, or with models that stand in for VBench's, is printed apart and marked; none mixes our
    variants with published ones.
    """
    from components.evaluation.dimensions.catalogue import catalogue

    raw = read_results(results, with_videos=False)
    twofold = [name for name, providers in catalogue().items() if any(one.variant for one in providers)]
    found = file_totals(raw, twofold)
    print(totals_as_json(raw, found) if as_json else totals_as_text(raw, found))


@app.command("compare")
def compare(
    results: Annotated[list[Path], typer.Argument(help="result files: the base first, then the candidates")],
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="[DIMENSION=]SHARE",
            help="largest harmless fall, as a share of the dimension's range [default: 0.03]",
        ),
    ] = None,
    as_json: JsonOption = False,
    params_file: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Compare result files of the same prompts and seeds, dimension by dimension, with the first one."""
    from components.evaluation.comparison import result_files

    params = load_params(EvaluationParams, "evaluation", params_file, overrides)
    plan = result_files.AnalysisPlan(
        *_margins(margin or [], result_files.MARGIN), resamples=params.resamples, seed=params.run.seed
    )
    found = result_files.run(results, plan)
    print(json.dumps(result_files.as_json(found), indent=1) if as_json else result_files.as_table(found))


def _margins(texts: list[str], general: float) -> tuple[float, dict[str, float]]:
    """The margin of all dimensions, ``general`` where none is named, and those of single ones."""
    single: dict[str, float] = {}
    for text in texts:
        name, _, share = text.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1 or (name and name not in QUALITY + SEMANTIC):
            raise InputError(f"--margin {text}: expected SHARE or DIMENSION=SHARE, a share in 0..1")
        if name:
            single[name] = value
        else:
            general = value
    return general, single


if __name__ == "__main__":
    main(app)
