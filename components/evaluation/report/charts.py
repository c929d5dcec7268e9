"""Charts as inline SVG; colours come from the page's style sheet and follow its light and dark themes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

#: What is drawn of a training log, as (title, columns); columns the log does not have are left out.
CURVES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Loss", ("loss",)),
    ("Implicit accuracy", ("accuracy",)),
    ("Denoising error", ("winner_error", "loser_error")),
    ("Reward of the rollouts", ("reward_mean", "reward_best", "reward_worst")),
    ("Reward gap inside pairs", ("gap_mean",)),
    ("Motion of the rollouts", ("motion_mean", "motion")),
    ("Implicit margin", ("margin", "margin_mean")),
    ("Pairs per iteration", ("pairs", "pairs_kept")),
    ("Gradient norm", ("grad_norm",)),
)

WIDTH, HEIGHT = 320, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22


def curves(log: Mapping[str, Sequence[float]]) -> list[tuple[str, list[str], Markup]]:
    """The known curves of a training log: title, names of the series in drawing order, SVG."""
    x = log.get("iteration") or list(range(1, 1 + max((len(values) for values in log.values()), default=0)))
    found = []
    for title, columns in CURVES:
        series = {name: log[name] for name in columns if name in log and any(map(math.isfinite, log[name]))}
        if series:
            found.append((title, list(series), line_chart(title, x, series)))
    return found


def line_chart(title: str, x: Sequence[float], series: Mapping[str, Sequence[float]]) -> Markup:
    """Lines over one x axis; points that are not finite are gaps. The y axis spans the data."""
    finite = [value for values in series.values() for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    if high - low < 1e-12:
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    left, right = min(x), max(x)
    across = (right - left) or 1.0

    def place(at: float, value: float) -> tuple[float, float]:
        return (
            LEFT + (at - left) / across * (WIDTH - LEFT - RIGHT),
            TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for tick in (low, (low + high) / 2, high):
        y = place(left, tick)[1]
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, y, y
            )
        )
        parts.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                LEFT - 5, y + 3.5, _tick(tick)
            )
        )
    for at, anchor in ((left, "start"), (right, "end")):
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
                place(at, low)[0], HEIGHT - 6, anchor, _tick(at)
            )
        )
    for number, values in enumerate(series.values()):
        for stretch in _stretches(x, values):
            points = " ".join("{:.1f},{:.1f}".format(*place(at, value)) for at, value in stretch)
            parts.append(Markup('<polyline class="series-{}" points="{}"/>').format(number % 3, points))
    label = f"{title}: {', '.join(series)} from {_tick(left)} to {_tick(right)}"
    return Markup('<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )


def bars(base: float, aligned: float) -> Markup:
    """Two bars over 0..1, base above aligned; figures outside are cut to the ends."""
    rows = []
    for number, (name, value) in enumerate((("base", base), ("aligned", aligned))):
        width = 100 * min(1.0, max(0.0, value))
        rows.append(
            Markup('<rect class="{}" x="0" y="{}" width="{:.2f}" height="8"/>').format(
                name, 1 + 10 * number, width
            )
        )
    label = f"base {base:.3f}, aligned {aligned:.3f}"
    return Markup(
        '<svg class="bars" viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="track" x="0" y="1" width="100" height="18"/>{}</svg>'
    ).format(label, Markup("").join(rows))


def shares(wins: int, ties: int, losses: int) -> Markup:
    """Wins, ties and losses as one bar."""
    total = max(1, wins + ties + losses)
    at, parts = 0.0, []
    for name, count in (("win", wins), ("tie", ties), ("loss", losses)):
        width = 100 * count / total
        parts.append(
            Markup('<rect class="{}" x="{:.2f}" y="0" width="{:.2f}" height="10"/>').format(name, at, width)
        )
        at += width
    label = f"{wins} won, {ties} tied, {losses} lost"
    return Markup(
        '<svg class="shares" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{}">{}'
        '<line class="half" x1="50" x2="50" y1="0" y2="10"/></svg>'
    ).format(label, Markup("").join(parts))


def _stretches(x: Sequence[float], values: Sequence[float]) -> list[list[tuple[float, float]]]:
    found: list[list[tuple[float, float]]] = [[]]
    for at, value in zip(x, values, strict=False):
        if math.isfinite(value) and math.isfinite(at):
            found[-1].append((at, value))
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


def _tick(value: float) -> str:
    return f"{value:.3g}"
