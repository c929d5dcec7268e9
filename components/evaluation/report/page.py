"""Fills the report's template. Every text goes through autoescape: prompts and file names are not ours."""

from __future__ import annotations

import base64
import csv
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray
from torch import Tensor

from components.evaluation.report import charts
from components.evaluation.verdict import Verdict
from components.video.clip import Clip
from components.video.codec import write_video

#: Shorter side (px) of each half of a clip in the page, and the gap between the halves.
SHOWN_SIDE, GAP = 192, 8
#: Figures of the reward card that are shown at once; the others are folded away.
CARD_FIRST = re.compile(
    r"srcc_(world|footage|all|heldout_types)|reference_above_all|\w+_below_original_generated|judge_.*"
)
RULES = {
    "best": "the pairs whose figure rose most from base to aligned",
    "worst": "the pairs whose figure fell most (or rose least)",
    "random": "drawn from the rest by the run's seed",
}


@dataclass(frozen=True)
class Shown:
    """A pair on the page: which one, why, its prompt and figures."""

    group: str
    place: int
    prompt: str
    index: int
    figures: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Material:
    """What the page is made of.

    Attributes:
        verdict: the comparison.
        dimensions: of each measured dimension its group, definition and method.
        unavailable: reason by dimension.
        shown: the pairs to show; ``frames`` holds both sides' clips, uint8 (N, T, 3, H, W).
        chosen_by: the figure that chose best and worst.
        log: training curves by column.
        reward_card: the reward's own figures.
        totals: VBench totals of both sides or why there are none.
        provenance: name and value pairs.
        setting: prompts, seeds and the like, in words.
        motion_by: how motion was measured.
        diversity_of: what the diversity compares.
        confidence: coverage of the intervals.
    """

    verdict: Verdict
    dimensions: dict[str, dict[str, str]]
    unavailable: dict[str, str]
    shown: list[Shown]
    chosen_by: str
    log: dict[str, list[float]]
    reward_card: dict[str, float]
    totals: str
    provenance: list[tuple[str, str]]
    setting: str
    diversity_of: str
    motion_by: str
    confidence: float


def choose_pairs(
    difference: NDArray[np.float64], number: int, rng: np.random.Generator
) -> dict[str, list[int]]:
    """Places of ``number`` best, worst and random pairs by a (N,) difference, none twice."""
    order = [int(place) for place in np.argsort(-np.nan_to_num(difference, nan=0.0), kind="stable")]
    number = min(number, max(1, len(order) // 3)) if len(order) >= 3 else 1
    best = order[:number]
    worst = [place for place in reversed(order) if place not in best][:number]
    rest = [place for place in range(len(order)) if place not in best and place not in worst]
    drawn = [int(place) for place in rng.permutation(rest)[:number]] if rest else []
    return {"best": best, "worst": worst, "random": drawn}


def read_log(file: Path | None) -> dict[str, list[float]]:
    """Columns of a CSV of numbers; a cell that is not one becomes NaN. No file: no curves."""
    if file is None or not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [_number(row.get(name)) for row in rows] for name in (rows[0] if rows else {}) if name}


def beside(base: Tensor, aligned: Tensor, fps: float) -> Clip:
    """Base on the left, aligned on the right, one clip: the two can never fall out of step."""
    factor = max(1, round(SHOWN_SIDE / min(base.shape[-2:])))
    halves = [half.repeat_interleave(factor, -1).repeat_interleave(factor, -2) for half in (base, aligned)]
    gap = torch.full((*halves[0].shape[:-1], GAP), 128, dtype=torch.uint8)
    return Clip(torch.cat([halves[0], gap, halves[1]], dim=-1), fps)


def render(material: Material, base: Tensor, aligned: Tensor, fps: float) -> str:
    """The page as text; ``base`` and ``aligned`` are uint8 (N, T, 3, H, W)."""
    environment = Environment(
        loader=PackageLoader("components.evaluation.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "signed": partial(_figure, sign=True), "words": _words}
    groups: list[dict[str, Any]] = []
    for group, rule in RULES.items():
        pairs = [
            {"pair": one, "video": _data_uri(beside(base[one.place], aligned[one.place], fps))}
            for one in material.shown
            if one.group == group
        ]
        if pairs:
            groups.append({"name": group, "rule": rule, "pairs": pairs})
    figures = sorted(material.reward_card.items())
    first = [entry for entry in figures if CARD_FIRST.fullmatch(entry[0])] or figures
    return environment.get_template("page.html.j2").render(
        card_first=first,
        card_rest=[entry for entry in figures if entry not in first],
        m=material,
        v=material.verdict,
        groups=groups,
        curves=charts.curves(material.log),
        fps=fps,
        bars=charts.bars,
        shares=charts.shares,
        percent=f"{100 * material.confidence:g} %",
        style=_source("page.css"),
        script=_source("page.js"),
    )


def _source(name: str) -> str:
    """A file of this package that goes into the page as it is."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _data_uri(clip: Clip) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        write_video(clip, file, scale=1)
        return f"data:video/mp4;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _figure(value: float | None, places: int = 3, sign: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:+.{places}f}" if sign else f"{value:.{places}f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan


def shown_pairs(
    places: Mapping[str, Sequence[int]],
    prompts: Sequence[str],
    indices: Sequence[int],
    figures: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> list[Shown]:
    """Turn chosen places into the page's pairs, with the figures of both sides."""
    return [
        Shown(
            group=group,
            place=place,
            prompt=prompts[place],
            index=indices[place],
            figures={
                name: (float(base[place]), float(aligned[place])) for name, (base, aligned) in figures.items()
            },
        )
        for group, chosen in places.items()
        for place in chosen
    ]
