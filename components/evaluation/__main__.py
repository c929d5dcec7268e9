"""python -m components.evaluation run | table | sample | score | totals | compare | weights"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.params import EvaluationParams
from components.evaluation.vbench.files import in_words
from components.evaluation.vbench.totals import Sums, Totals, read_raw, sums
from components.runtime.errors import InputError
from components.runtime.step import ParamsOption, SetOption, command_app, load_params, main, step_app

app = step_app(
    "evaluation",
    EvaluationParams,
    "components.evaluation.step:run",
    inputs=("corpus", "generator", "reward", "alignment"),
    help="Compare the aligned generator with its base on held-out prompts; measure videos as VBench does.",
)
weights_app = command_app("The pretrained models' weights: list, fetch, verify.")
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
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
NamesArgument = Annotated[list[str] | None, typer.Argument(help="names of weights; all of them if none")]


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
    dimension: Annotated[
        list[str] | None, typer.Option("--dimension", help="only its prompts; may be repeated")
    ] = None,
    samples: SamplesOption = None,
    augmented: Annotated[
        str,
        typer.Option(
            "--augmented",
            help="draw from these rewritten prompts, one for each of the suite's in its order, under the "
            "originals' names",
        ),
    ] = "",
    params_file: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Draw a suite's videos under VBench's names; several processes (torchrun) share the work."""
    from components.evaluation import commands

    params = load_params(EvaluationParams, "evaluation", params_file, overrides)
    commands.sample(params, suite, videos, generator, alignment, dimension or [], samples, augmented)


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
    dimension: Annotated[
        list[str] | None, typer.Option("--dimension", help="only this one; may be repeated")
    ] = None,
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
    from components.evaluation import commands

    params = load_params(EvaluationParams, "evaluation", params_file, overrides)
    commands.score(params, suite or videos, videos, out, name, dimension or [], samples, fps)


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

    raw = read_raw(results)
    twofold = [name for name, providers in catalogue().items() if any(one.variant for one in providers)]
    found = sums(raw, twofold)
    otherwise = {name: one.method for name, one in raw.items() if one.method}
    variants = [name for name, one in raw.items() if one.variant]
    if as_json:
        named: dict[str, object] = {"unit": "per cent"} | _per_cent(found.official)
        named |= {"missing": found.official.missing, "scaled": found.ours.scaled}
        named |= {"measured_otherwise": otherwise, "variants": variants, "mixed": found.mixed}
        named |= {"with_our_variants": _per_cent(found.ours)} if variants else {}
        print(json.dumps(named | ({"with_substitutes": _per_cent(found.all)} if otherwise else {}), indent=2))
        return
    for name in QUALITY + SEMANTIC:
        if name in otherwise:
            method = in_words(raw[name].method, raw[name].variant)
            print(f"{name:24}     n/a  {method} ({100 * raw[name].score:.2f})")
        elif name in raw:
            ours = "  our variant" if name in variants else ""
            print(f"{name:24}{100 * raw[name].score:8.2f}  scaled {100 * found.ours.scaled[name]:8.2f}{ours}")
        else:
            print(f"{name:24}     n/a  not in the file")
    for name in ("quality", "semantic", "total"):
        value = getattr(found.official, name)
        figure = _other_total(found, name, bool(variants)) if value is None else f"{100 * value:8.2f}"
        print(f"{name:24}{figure}")
    if found.mixed:
        print(f"no total: {found.mixed}")


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
    from components.evaluation.comparison import result_files as contest

    params = load_params(EvaluationParams, "evaluation", params_file, overrides)
    general, single = _margins(margin or [])
    terms = contest.Terms(
        contest.MARGIN if general is None else general,
        single,
        resamples=params.resamples,
        seed=params.run.seed,
    )
    found = contest.run(results, terms)
    print(
        json.dumps(contest.as_json(found), indent=1) if as_json else contest.as_table(found),
        end="\n" * as_json,
    )


@weights_app.command("list")
def list_weights(
    at: Annotated[str, typer.Option("--at", help="also say what is there: a folder or s3:// prefix")] = "",
) -> None:
    """Print every set of weights: size, licence, origin, the dimensions that need it."""
    from components.evaluation import commands

    commands.list_weights(at)


@weights_app.command("fetch")
def fetch_weights(
    to: Annotated[str, typer.Option("--to", help="a folder or s3:// prefix")],
    names: NamesArgument = None,
    origin: Annotated[
        str, typer.Option("--origin", help="another hub repository for the one set named")
    ] = "",
) -> None:
    """Fetch weights as safetensors, for a machine without network to read from."""
    from components.evaluation import commands

    commands.fetch_weights(names or [], to, origin)


@weights_app.command("verify")
def verify_weights(
    at: Annotated[str, typer.Option("--to", "--at", help="a folder or s3:// prefix")],
    names: NamesArgument = None,
) -> None:
    """Compare every fetched file with its recorded size and SHA-256."""
    from components.evaluation import commands

    commands.verify_weights(names or [], at)


def _other_total(found: Sums, name: str, ours: bool) -> str:
    """That there is no official total, and one that must not be compared with published ones, marked."""
    both = " and our variants" if ours else ""
    for one, mark in ((found.ours, "with our variants"), (found.all, f"with substitutes{both}")):
        value = getattr(one, name)
        if value is not None:
            return f"     n/a  {100 * value:.2f} {mark}, not comparable with published totals"
    return "     n/a"


def _per_cent(found: Totals) -> dict[str, object]:
    values = {"quality": found.quality, "semantic": found.semantic, "total": found.total}
    return {name: None if value is None else 100 * value for name, value in values.items()}


def _margins(given: list[str]) -> tuple[float | None, dict[str, float]]:
    general: float | None = None
    single: dict[str, float] = {}
    for text in given:
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
