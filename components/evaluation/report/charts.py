"""Curves as inline SVG; colours come from the page's style sheet and follow its light and dark themes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class ChartSpec:
    """What is drawn of a log: a title, what it tells, and the columns; those the log lacks are left out.

    ``followed`` is the column whose change, first quarter to last, is said beside what a reader would hope
    for: the sentence then cannot contradict the picture.
    """

    title: str
    tells: str
    columns: tuple[str, ...]
    followed: str = ""


@dataclass(frozen=True)
class Chart:
    """A curve as it goes into the page: names of its series in drawing order, and the picture."""

    title: str
    tells: str
    names: list[str]
    picture: Markup


#: What the page shows of the alignment.
ALIGNMENT: tuple[ChartSpec, ...] = (
    ChartSpec(
        "Reward of the rollouts",
        "the policy's own samples, scored by the reward it is trained on",
        ("reward_mean", "reward_best"),
    ),
    ChartSpec("Loss", "of the pairs", ("loss",)),
    ChartSpec(
        "Implicit accuracy",
        "share of pairs in which the policy prefers the winner; 0.5 is chance",
        # The second name is that of the release before.
        ("rewards/accuracies", "accuracy"),
    ),
    ChartSpec(
        "Denoising error",
        "a winner's error that rises means that the policy models even the preferred clips less well",
        ("winner_error", "loser_error"),
        followed="winner_error",
    ),
    ChartSpec(
        "Motion of the rollouts",
        "of each iteration's own prompts; a fall can be a policy that learns stillness, or prompts that move "
        "less, so the verdict goes by the motion ratio on equal prompts",
        ("motion_mean", "motion"),
        followed="motion_mean",
    ),
    ChartSpec(
        "Pairs per iteration",
        "kept, and left out because the reward could not tell the two apart",
        ("pairs", "within_noise"),
    ),
)
#: The loss of a pair on which the policy is its reference: the preference is 0 and no winner has got worse.
LOSS_OF_REFERENCE = {
    "dpo": math.log(2),
    "dpop": math.log(2),
    "sdpo": math.log(2),
    "ipo": 0.25,
    "linear_dpo": 0.3125,
}
#: What it folds away.
MORE: tuple[ChartSpec, ...] = (
    ChartSpec(
        "Implicit margin",
        "how much more the policy prefers the winner than its reference does",
        ("rewards/margins", "margin", "margin_mean"),
    ),
    ChartSpec("Reward gap inside pairs", "winner minus loser", ("gap_mean",)),
    ChartSpec("Drift from the base", "relative size of the adapter's change", ("drift_from_base",)),
    ChartSpec("Gradient norm", "before clipping", ("gradient_norm", "grad_norm")),
)
#: What it shows of the reward's own training.
REWARD: tuple[ChartSpec, ...] = (
    ChartSpec("Training loss of the reward", "sum of its parts", ("loss",)),
    ChartSpec(
        "Its parts",
        "order, correlation with the label, kinds of distortion",
        ("rank", "correlation", "aspects"),
    ),
)

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 34
_LINE = Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
_TEXT = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')


def loss_note(params: Mapping[str, Any]) -> str:
    """What the alignment's loss is made of, and what it is where nothing has been learned.

    Args:
        params: the alignment's, as its manifest holds them; a key that is missing says nothing.
    """
    # The second names are those of the release before.
    weight = params.get("sft_weight", params.get("winner_weight")) or 0.0
    if params.get("strategy") == "best_of_n":
        scale = f", times {number(1 + weight)}" if weight else ""
        return f"the winners' denoising error{scale}: best of N trains on winners alone"
    objective = str(params.get("loss", params.get("objective", "")))
    if objective not in LOSS_OF_REFERENCE:
        return "of the pairs"
    parts = f"{objective.replace('_', '-').upper()} loss of the pairs"
    start = f"a policy equal to its reference has {number(LOSS_OF_REFERENCE[objective])}"
    if weight:
        parts += f" plus {number(weight)} times the winner's denoising error"
        start += " plus the latter"
    return f"{parts}; {start}"


def change_in_words(values: Sequence[float]) -> str:
    """``falls from 0.198 to 0.153, by 23 %``: means of the first and the last quarter of the finite values.

    "" for fewer than four finite values.
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 4:
        return ""
    part = max(1, len(finite) // 4)
    first, last = (sum(some) / part for some in (finite[:part], finite[-part:]))
    if first <= 0 or abs(last / first - 1) < 0.005:
        return f"goes from {number(first)} to {number(last)}" if first <= 0 else f"stays at {number(first)}"
    word = "rises" if last > first else "falls"
    return f"{word} from {number(first)} to {number(last)}, by {100 * abs(last / first - 1):.0f} %"


def curves(
    log: Mapping[str, Sequence[float]],
    wanted: Sequence[ChartSpec] = ALIGNMENT,
    across: str = "iteration",
    notes: Mapping[str, str] | None = None,
) -> list[Chart]:
    """The known curves of a training log, over its column ``across`` (or the row's number).

    ``notes`` says of some titles what they tell, where that depends on the run.
    """
    x = log.get(across) or list(range(1, 1 + max((len(values) for values in log.values()), default=0)))
    marks = _changes(x, log.get("reference_version", ()))
    charts = []
    for curve in wanted:
        series = {
            name: log[name] for name in curve.columns if name in log and any(map(math.isfinite, log[name]))
        }
        if series:
            picture = line_chart(curve.title, x, series, across, marks)
            tells = (notes or {}).get(curve.title, curve.tells)
            if change := change_in_words(series.get(curve.followed, ())):
                tells += f". Here {curve.followed.replace('_', ' ')} {change} (first and last quarter)"
            charts.append(Chart(curve.title, tells, list(series), picture))
    return charts


def line_chart(
    title: str,
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    across: str = "",
    marks: Sequence[float] = (),
) -> Markup:
    """Lines over one x axis; points that are not finite are gaps. The y axis spans the data.

    Args:
        title: for the text that screen readers get.
        x: (N,) finite places.
        series: (N,) values by name; at least one is finite.
        across: name of the x axis.
        marks: places of dashed vertical lines.
    """
    finite = [value for values in series.values() for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    if high - low < 1e-12:
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    ticks = [float(tick) for tick in MaxNLocator(4).tick_values(low, high)]
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    left, right = min(x), max(x)
    wide = (right - left) or 1.0
    written = tick_labels(ticks)
    margin = max(LEFT, 12 + 7 * max(map(len, written)))

    def place(at: float, value: float) -> tuple[float, float]:
        return (
            margin + (at - left) / wide * (WIDTH - margin - RIGHT),
            TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for tick, label in zip(ticks, written, strict=True):
        y = place(left, tick)[1]
        parts.append(_LINE.format("grid", margin, WIDTH - RIGHT, y, y))
        parts.append(_TEXT.format(margin - 6, y + 4, "end", label))
    for at in marks:
        parts.append(_LINE.format("change", place(at, low)[0], place(at, low)[0], TOP, HEIGHT - BOTTOM))
    for at, anchor in ((left, "start"), (right, "end"))[: 1 if left == right else 2]:
        parts.append(_TEXT.format(place(at, low)[0], HEIGHT - BOTTOM + 16, anchor, number(at)))
    if across:
        middle = (margin + WIDTH - RIGHT) / 2
        parts.append(_TEXT.format(middle, HEIGHT - 4, "middle", across.replace("_", " ")))
    for order, values in enumerate(series.values()):
        for stretch in _stretches(x, values):
            points = " ".join("{:.1f},{:.1f}".format(*place(at, value)) for at, value in stretch)
            parts.append(Markup('<polyline class="series-{}" points="{}"/>').format(order % 3, points))
    spoken = f"{title}: " + "; ".join(_in_words(name, values) for name, values in series.items())
    return Markup('<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, spoken, Markup("").join(parts)
    )


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Evenly spaced places of an axis, with the decimals that their step needs, so that no two look alike."""
    step = min((later - sooner for sooner, later in pairwise(ticks)), default=0.0)
    if step <= 0 or max(map(abs, ticks)) >= 1e6:
        return [number(tick) for tick in ticks]
    places = next((n for n in range(12) if all(abs(t - round(t, n)) < step / 1000 for t in ticks)), 12)
    return [f"{tick:.{places}f}".replace("-", "\N{MINUS SIGN}") for tick in (t + 0.0 for t in ticks)]


def number(value: float) -> str:
    """Three digits that matter, no exponent for everyday sizes, a true minus sign."""
    text = f"{value:.0f}" if abs(value) >= 1000 and abs(value) < 1e6 else f"{value:.3g}"
    return "0" if text in ("-0", "0") else text.replace("-", "\N{MINUS SIGN}")


def _in_words(name: str, values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    return (
        f"{name.replace('_', ' ')} from {number(finite[0])} to {number(finite[-1])}, "
        f"lowest {number(min(finite))}, highest {number(max(finite))}"
    )


def _changes(x: Sequence[float], versions: Sequence[float]) -> list[float]:
    """Places at which the version differs from the one before."""
    return [x[i] for i in range(1, min(len(x), len(versions))) if versions[i] != versions[i - 1]]


def _stretches(x: Sequence[float], values: Sequence[float]) -> list[list[tuple[float, float]]]:
    """The points between gaps."""
    runs = groupby(zip(x, values, strict=False), key=lambda point: all(map(math.isfinite, point)))
    return [list(points) for finite, points in runs if finite]
