"""Curves as inline SVG; colours come from the page's style sheet and follow its light and dark themes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Curve:
    """What is drawn of a log: a title, what it tells, and the columns; those the log lacks are left out."""

    title: str
    tells: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """A curve as it goes into the page: names of its series in drawing order, and the picture."""

    title: str
    tells: str
    names: list[str]
    picture: Markup


#: What the page shows of the alignment.
ALIGNMENT: tuple[Curve, ...] = (
    Curve(
        "Reward of the rollouts",
        "the policy's own samples, scored by the reward it is trained on",
        ("reward_mean", "reward_best"),
    ),
    Curve("Loss", "of the preference objective; 0.693 says nothing learned", ("loss",)),
    Curve(
        "Implicit accuracy",
        "share of pairs in which the policy prefers the winner; 0.5 is chance",
        ("accuracy",),
    ),
    Curve(
        "Denoising error",
        "the winner's should not rise: a loser's rising alone is how such training breaks down",
        ("winner_error", "loser_error"),
    ),
    Curve(
        "Motion of the rollouts",
        "should stay level: a still picture is easy to like",
        ("motion_mean", "motion"),
    ),
    Curve(
        "Pairs per iteration",
        "kept, and left out because the reward could not tell the two apart",
        ("pairs", "within_noise"),
    ),
)
#: What it folds away.
MORE: tuple[Curve, ...] = (
    Curve(
        "Implicit margin",
        "how much more the policy prefers the winner than its reference does",
        ("margin", "margin_mean"),
    ),
    Curve("Reward gap inside pairs", "winner minus loser", ("gap_mean",)),
    Curve("Drift from the base", "relative size of the adapter's change", ("drift_from_base",)),
    Curve("Gradient norm", "before clipping", ("gradient_norm", "grad_norm")),
)
#: What it shows of the reward's own training.
REWARD: tuple[Curve, ...] = (
    Curve("Training loss of the reward", "sum of its parts", ("loss",)),
    Curve(
        "Its parts",
        "order, correlation with the label, kinds of distortion",
        ("rank", "correlation", "aspects"),
    ),
)

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 34


def curves(
    log: Mapping[str, Sequence[float]], wanted: Sequence[Curve] = ALIGNMENT, across: str = "iteration"
) -> list[Drawn]:
    """The known curves of a training log, over its column ``across`` (or the row's number)."""
    x = log.get(across) or list(range(1, 1 + max((len(values) for values in log.values()), default=0)))
    marks = _changes(x, log.get("reference_version", ()))
    found = []
    for curve in wanted:
        series = {
            name: log[name] for name in curve.columns if name in log and any(map(math.isfinite, log[name]))
        }
        if series:
            picture = line_chart(curve.title, x, series, across, marks)
            found.append(Drawn(curve.title, curve.tells, list(series), picture))
    return found


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

    def place(at: float, value: float) -> tuple[float, float]:
        return (
            LEFT + (at - left) / wide * (WIDTH - LEFT - RIGHT),
            TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for tick in ticks:
        y = place(left, tick)[1]
        line = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        parts.append(line.format(LEFT, WIDTH - RIGHT, y, y))
        text = Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>')
        parts.append(text.format(LEFT - 6, y + 4, number(tick)))
    for at in marks:
        line = Markup('<line class="change" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>')
        parts.append(line.format(place(at, low)[0], place(at, low)[0], TOP, HEIGHT - BOTTOM))
    for at, anchor in ((left, "start"), (right, "end"))[: 1 if left == right else 2]:
        text = Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>')
        parts.append(text.format(place(at, low)[0], HEIGHT - BOTTOM + 16, anchor, number(at)))
    if across:
        text = Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
        parts.append(text.format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, across.replace("_", " ")))
    for order, values in enumerate(series.values()):
        for stretch in _stretches(x, values):
            points = " ".join("{:.1f},{:.1f}".format(*place(at, value)) for at, value in stretch)
            parts.append(Markup('<polyline class="series-{}" points="{}"/>').format(order % 3, points))
    label = f"{title}: " + "; ".join(_in_words(name, values) for name, values in series.items())
    return Markup('<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )


def number(value: float) -> str:
    """Three digits that matter, no exponent for everyday sizes, a true minus sign."""
    text = f"{value:.0f}" if abs(value) >= 1000 and abs(value) < 1e6 else f"{value:.3g}"
    return "0" if text in ("-0", "0") else text.replace("-", "\N{MINUS SIGN}")


def _in_words(name: str, values: Sequence[float]) -> str:
    found = [value for value in values if math.isfinite(value)]
    return (
        f"{name.replace('_', ' ')} from {number(found[0])} to {number(found[-1])}, "
        f"lowest {number(min(found))}, highest {number(max(found))}"
    )


def _changes(x: Sequence[float], versions: Sequence[float]) -> list[float]:
    """Places at which the version differs from the one before."""
    return [x[i] for i in range(1, min(len(x), len(versions))) if versions[i] != versions[i - 1]]


def _stretches(x: Sequence[float], values: Sequence[float]) -> list[list[tuple[float, float]]]:
    found: list[list[tuple[float, float]]] = [[]]
    for at, value in zip(x, values, strict=False):
        if math.isfinite(value) and math.isfinite(at):
            found[-1].append((at, value))
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]
