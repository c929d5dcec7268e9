"""python -m components.generator run | train"""

from __future__ import annotations

from typing import Annotated

import typer

from components.generator.params import GeneratorParams
from components.runtime.step import ParamsOption, SetOption, check_out, load_params, main, step_app

app = step_app(
    "generator",
    GeneratorParams,
    "components.generator.step:run",
    inputs=("corpus",),
    help="The base text-to-video model: obtain and examine it, or train the built-in miniature.",
)


@app.command()
def train(
    out: Annotated[str, typer.Option("--out", help="folder for the trained miniature")] = "models/miniature",
    params_file: ParamsOption = None,
    overrides: SetOption = None,
) -> None:
    """Train the miniature from nothing: minutes on a GPU, many hours on two cores.

    A stopped run goes on where it was.
    """
    params = load_params(GeneratorParams, "generator", params_file, overrides)
    check_out(out, "miniature")
    from components.generator.miniature.train import train_miniature

    train_miniature(params, out)


if __name__ == "__main__":
    main(app)
