"""python -m components.reward run | score | distortions"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from components.reward.params import RewardParams
from components.runtime.errors import InputError
from components.runtime.step import main, step_app

LONGEST = 512
"""Frames read from one file; a longer video is judged by its beginning."""


app = step_app(
    "reward",
    RewardParams,
    "components.reward.step:run",
    inputs=("corpus", "generator"),
    help="The video-quality reward: train it, score videos with it, see its distortions.",
)


@app.command()
def score(
    videos: Annotated[list[Path], typer.Argument(help="video files", metavar="VIDEO...")],
    reward: Annotated[
        str, typer.Option("--reward", help="a trained reward: folder or s3:// URI")
    ] = "artifacts/reward",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda")] = "auto",
) -> None:
    """Score videos: one JSON line each, {"path", "score"}; higher is better."""
    from components.reward.scorer import Scorer
    from components.runtime.artifacts import open_artifact
    from components.runtime.devices import configure_threads
    from components.video import read_video

    configure_threads()
    scorer = Scorer.load(open_artifact(reward, step="reward", allow_refused=True).path, device)
    short_side = min(scorer.geometry.height, scorer.geometry.width)
    broken = 0
    for path in videos:
        try:
            # Never decoded far larger than it is looked at: a long 4K file must not fill the memory.
            clip = read_video(path, max_frames=LONGEST, short_side=4 * short_side)
            value = float(scorer.score(clip.frames[None], clip.fps)[0])
        except InputError as error:
            broken += 1
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        print(json.dumps({"path": str(path), "score": value}), flush=True)
    if broken:
        raise InputError(f"{broken} of {len(videos)} videos could not be scored")


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
    from components.reward.catalogue import examples, generated_rungs, sheet, table

    print("\n".join(table()))
    if out is None:
        return
    from components.corpus.dataset import Corpus
    from components.runtime.devices import configure_threads
    from components.runtime.errors import storage_failure

    configure_threads()
    opened = Corpus.open(corpus)
    clips, names = examples(opened)
    generated = None
    if generator is not None:
        from components.generator.generator import Generator
        from components.runtime.artifacts import open_artifact

        prompts = opened.prompts("heldout") or opened.prompts()
        loaded = Generator.load(open_artifact(generator, step="generator").path)
        generated = generated_rungs(loaded, clips[0], prompts[0].text if prompts else "", level)
    picture = sheet(clips, names, level, opened.fps, generated=generated)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(out, optimize=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{out}: cannot be written: {storage_failure(error) or error}") from error
    print(f"\nsheet: {out}")


if __name__ == "__main__":
    main(app)
