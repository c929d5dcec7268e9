"""python -m components.reward run | score | import | combine | export | distortions"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.reward.params import RewardParams
from components.runtime.errors import InputError
from components.runtime.params import validated
from components.runtime.step import check_out, main, report, step_app

if TYPE_CHECKING:
    from components.runtime.artifacts.publish import StepResult

#: Up to so many files are scored without a progress bar.
FEW = 20
#: Mark in a contact sheet's file: only such a file is replaced by another one.
SHEET = "onlinevpo: contact sheet of distortions"

RewardOption = Annotated[str, typer.Option("--reward", help="a reward: folder or s3:// URI")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
OutOption = Annotated[str, typer.Option("--out", help="where to publish the reward: a folder or s3:// URI")]
CardOption = Annotated[str | None, typer.Option("--corpus", help="with --generator: measure a card on it")]

app = step_app(
    "reward",
    RewardParams,
    "components.reward.step:run",
    inputs=("corpus", "generator"),
    help="The video-quality reward: train it, score videos with it, see its distortions.",
)


@app.command()
def score(
    videos: Annotated[
        list[str],
        typer.Argument(help="video files, folders of them, s3:// objects or prefixes", metavar="VIDEO..."),
    ],
    reward: RewardOption = "artifacts/reward",
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="what all the videos were made for; some rewards read it")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Score videos: a JSON line each, {"path", "score", "uncertainty", "aspects"}; higher is better.

    A file that cannot be scored costs one line on stderr; the others are scored all the same, and the exit
    code is then 2.
    """
    from tqdm import tqdm

    from components.reward.scoring.load import open_reward
    from components.reward.scoring.videos import score_files, sources
    from components.runtime.artifacts.artifact import open_artifact
    from components.runtime.compute.devices import configure_threads
    from components.runtime.progress import Progress

    configure_threads()
    scorer = open_reward(open_artifact(reward, step="reward", allow_refused=True), device)
    files = sources(videos)
    broken = 0
    progress = Progress(len(files), "reward: scoring") if len(files) > FEW else nullcontext()
    try:
        with progress as bar:
            for result in score_files(scorer, files, None if prompt is None else [prompt] * len(files)):
                broken += result.error is not None
                stream = sys.stdout if result.error is None else sys.stderr
                # tqdm's own way of writing leaves the bar of a terminal whole.
                line = result.json_line() if result.error is None else f"error: {result.error}"
                tqdm.write(line, file=stream)
                stream.flush()
                if bar is not None:
                    bar.update()
    except BrokenPipeError:  # the reader closed its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(128 + signal.SIGPIPE) from None
    if broken:
        raise InputError(f"{broken} of {len(files)} files could not be scored, {len(files) - broken} were")
    print(f"{len(files)} of {len(files)} files scored", file=sys.stderr)


@app.command("import")
@app.command("adopt", hidden=True, deprecated=True)
def import_model(
    model: Annotated[
        str, typer.Option("--model", help="checkpoint: folder, s3:// prefix or owner/name[@revision]")
    ],
    out: OutOption,
    aspects: Annotated[
        str, typer.Option("--aspects", help="names of its outputs in order, a,b,...; else its own labels")
    ] = "",
    text: Annotated[
        Path | None,
        typer.Option("--text", help="file with the prompt template of a model that reads text; has {prompt}"),
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", help="frames it sees of a clip; else its own")
    ] = None,
    corpus: CardOption = None,
    generator: Annotated[
        str | None, typer.Option("--generator", help="with --corpus: measure a card")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Make a reward of a transformers regressor: VideoScore and its like, or a video classifier."""
    from components.reward.scoring import external

    check_out(out, "reward", (model, corpus, generator))
    try:
        template = None if text is None else text.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"--text {text}: {getattr(error, 'strerror', None) or error}") from error
    names = [name.strip() for name in aspects.split(",") if name.strip()]
    values = {"model": model, "frames": frames, "aspects": names, "text": template, "run": {"device": device}}
    params = validated(external.ImportParams, values)
    _print(external.import_model(params, out=out, corpus=corpus, generator=generator))


@app.command()
def combine(
    rewards: Annotated[list[str], typer.Argument(help="parts and their weights", metavar="REWARD=WEIGHT...")],
    out: OutOption,
    clips: Annotated[
        list[str] | None,
        typer.Option("--clips", help="videos to measure the parts' units on; else the generator's samples"),
    ] = None,
    corpus: CardOption = None,
    generator: Annotated[
        str | None,
        typer.Option("--generator", help="whose samples give the units; with --corpus: measure a card"),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Make a reward of several: a weighted sum, each in units of its own standard deviation."""
    from components.reward.scoring import external

    terms = []
    for term in rewards:
        name, equals, weight = term.rpartition("=")
        try:
            terms.append({"reward": name, "weight": float(weight)})
        except ValueError:
            name = ""
        if not equals or not name:
            raise InputError(f"{term}: must have the form REWARD=WEIGHT, e.g. artifacts/reward=0.5")
    check_out(out, "reward", (*(term["reward"] for term in terms), *(clips or []), corpus, generator))
    values = {"terms": terms, "clips": clips or [], "run": {"device": device}}
    params = validated(external.CombineParams, values)
    _print(external.combine(params, out=out, corpus=corpus, generator=generator))


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="new folder")], reward: RewardOption = "artifacts/reward"
) -> None:
    """Write a reward as an MLflow model (pyfunc from code): paths or URIs in, a table of scores out."""
    from components.reward.scoring.mlflow_model import save

    if str(out).startswith(("s3:", "file:")):
        raise InputError(f"--out {out}: an MLflow model is written to a local folder; name one by its path")
    print(f"MLflow model: {save(reward, out)}")


def _print(made: StepResult) -> None:
    report("reward", made.out, made.metrics)
    if not made.metrics["measured"]:
        print("unmeasured: give --corpus and --generator for a card and a gate", file=sys.stderr)


@app.command()
def distortions(
    out: Annotated[Path | None, typer.Option("--out", help="write a contact sheet (PNG) there")] = None,
    level: Annotated[int, typer.Option("--level", min=1, max=5, help="last severity on the sheet")] = 5,
    corpus: Annotated[
        str, typer.Option("--corpus", help="corpus whose test clips are shown")
    ] = "artifacts/corpus",
    generator: Annotated[
        str | None, typer.Option("--generator", help="generator whose VAE and samples are shown too")
    ] = None,
) -> None:
    """Print the catalogue of distortions; with --out, draw a contact sheet of all of them at every level."""
    from components.reward.distortions.contact_sheet import examples, generated_levels, sheet, table
    from components.runtime.artifacts.outputs import check_file

    if out is not None:
        check_file(out, "a contact sheet of ours", _is_sheet)
    print("\n".join(table()))
    if out is None:
        return
    from PIL.PngImagePlugin import PngInfo

    from components.corpus.dataset import Corpus
    from components.runtime.compute.devices import configure_threads
    from components.runtime.errors import storage_failure
    from components.runtime.io.files import atomic_file

    configure_threads()
    opened = Corpus.open(corpus)
    clips, names = examples(opened)
    generated = None
    if generator is not None:
        from components.generator.generator import Generator
        from components.runtime.artifacts.artifact import open_artifact

        prompts = opened.prompts("heldout") or opened.prompts()
        loaded = Generator.load(open_artifact(generator, step="generator").path)
        generated = generated_levels(loaded, clips[0], prompts[0].text if prompts else "", level)
    picture = sheet(clips, names, level, opened.fps, generated=generated)
    try:
        about = PngInfo()
        about.add_text("Software", SHEET)
        with atomic_file(out) as aside:
            picture.save(aside, format="png", optimize=True, pnginfo=about)
    except (OSError, ValueError) as error:
        raise InputError(f"{out}: cannot be written: {storage_failure(error) or error}") from error
    print(f"\nsheet: {out}")


def _is_sheet(file: Path) -> bool:
    from PIL import Image

    with Image.open(file) as picture:
        return picture.info.get("Software") == SHEET


if __name__ == "__main__":
    main(app)
