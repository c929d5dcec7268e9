"""What the benchmarks over whole alignments share: options, params, and the two steps of an arm."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from earlier_results import is_done

from components.alignment.params import AlignmentParams
from components.evaluation.params import EvaluationParams
from components.runtime.errors import InputError, OnlineVPOError
from components.runtime.params import StepParams, load_step_params

P = TypeVar("P", bound=StepParams)
SECTIONS = ("run", "alignment", "evaluation")
INPUTS = ("corpus", "generator", "reward")


def make_parser(description: str | None, arms: Sequence[str], out: str) -> argparse.ArgumentParser:
    """Return the options of a benchmark: its arms by default, and the folder of its results."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--arms", nargs="+", default=list(arms), metavar="ARM")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    for name in INPUTS:
        parser.add_argument(f"--{name}", default=f"artifacts/{name}", help=f"{name} artifact")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the results")
    parser.add_argument("--report-only", action="store_true", help="run nothing, report on what is there")
    return parser


def exit_code_of(action: Callable[[], None]) -> int:
    """Run a benchmark; print an error of the user's as one line and return its exit code."""
    try:
        action()
    except OnlineVPOError as error:
        print(f"{error.label}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def load(kind: type[P], section: str, overrides: Sequence[str], fixed: Sequence[str] = ()) -> P:
    """Return a section's params from `fixed` settings, then those of the overrides that are the section's.

    Raises:
        InputError: an override of another section than `SECTIONS`, or a wrong value.
    """
    for override in overrides:
        if override.split(".", 1)[0] not in SECTIONS:
            raise InputError(f"--set {override}: allowed are {', '.join(f'{name}.*' for name in SECTIONS)}")
    mine = [override for override in overrides if override.split(".", 1)[0] in ("run", section)]
    return load_step_params(kind, section, None, [*fixed, *mine])


def align_and_evaluate(
    folder: Path,
    alignment: AlignmentParams,
    evaluation: EvaluationParams,
    inputs: dict[str, Path],
    reward: Path | None = None,
) -> None:
    """Align and evaluate one arm, or what is left of it.

    Args:
        inputs: by `INPUTS`; the evaluation's.
        reward: to align to, if another one.
    """
    from components.alignment.step import run as align
    from components.evaluation.step import run as evaluate

    if not is_done(folder / "alignment", alignment):
        print(f"{folder.name}: alignment", flush=True)
        align(alignment, **(inputs | {"reward": reward or inputs["reward"]}), out=folder / "alignment")
    if not is_done(folder / "evaluation", evaluation):
        print(f"{folder.name}: evaluation", flush=True)
        evaluate(evaluation, **inputs, alignment=folder / "alignment", out=folder / "evaluation")
