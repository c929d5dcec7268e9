"""Small charts that stand in a row beside their figures: bars, shares, intervals on a common axis.

All are stretched to the room they get, so they hold no text; each says in words what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from components.evaluation.report.charts import number
from components.reward.card.card import Wins
from components.runtime.stats import Interval

_FRAME = Markup(
    '<svg class="{}" viewBox="0 0 100 {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
)
_RECT = Markup('<rect class="{}" x="{:.2f}" y="{}" width="{:.2f}" height="{}"/>')
_LINE = Markup('<line class="{}" x1="{:.2f}" x2="{:.2f}" y1="{}" y2="{}"/>')


def bars(base: float, aligned: float) -> Markup:
    """Two bars over 0..1, base above aligned; figures outside are cut to the ends."""
    rows = [_RECT.format("track", 0, 1, 100, 18)]
    for order, (name, value) in enumerate((("base", base), ("aligned", aligned))):
        rows.append(_RECT.format(name, 0, 1 + 10 * order, 100 * min(1.0, max(0.0, value)), 8))
    label = f"base {base:.3f}, aligned {aligned:.3f}"
    return _FRAME.format("bars", 20, label, Markup("").join(rows))


def bar(value: float | None, name: str = "aligned") -> Markup:
    """One bar over 0..1; nothing where there is no value or a negative one."""
    width = 100 * min(1.0, max(0.0, value)) if value is not None and math.isfinite(value) else 0.0
    parts = _RECT.format("track", 0, 0, 100, 6) + _RECT.format(name, 0, 0, width, 6)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(parts)


def shares(wins: int, ties: int, losses: int) -> Markup:
    """Wins, ties and losses as one bar with its middle marked."""
    total = max(1, wins + ties + losses)
    at, parts = 0.0, []
    for name, count in (("win", wins), ("tie", ties), ("loss", losses)):
        parts.append(_RECT.format(name, at, 0, 100 * count / total, 10))
        at += 100 * count / total
    parts.append(_LINE.format("half", 50, 50, 0, 10))
    return _FRAME.format("shares", 10, f"{wins} won, {ties} tied, {losses} lost", Markup("").join(parts))


@dataclass(frozen=True)
class Axis:
    """A common horizontal axis for `interval` and `spans`."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Place in 0..100, cut to the ends."""
        return 100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def axis(intervals: Sequence[Interval], also: Sequence[float] = ()) -> Axis:
    """An axis around 0, the same to both sides, that holds all finite ends and ``also``."""
    ends = [abs(end) for one in intervals for end in (one.low, one.high, one.value)] + [*map(abs, also)]
    reach = max([end for end in ends if math.isfinite(end)], default=0.0) or 1.0
    return Axis(-1.08 * reach, 1.08 * reach)


def interval(estimate: Interval, on: Axis, limit: float | None = None) -> Markup:
    """An estimate with its interval beside 0; ``limit`` marks the least that is allowed."""
    parts = [_LINE.format("zero", on.at(0), on.at(0), 0, 20)]
    ends = f"interval {estimate.low:+.4f} to {estimate.high:+.4f}" if estimate.known else "no interval"
    label = f"change {estimate.value:+.4f}, {ends}"
    if limit is not None:
        parts.append(_LINE.format("limit", on.at(limit), on.at(limit), 0, 20))
        label += f", at least {limit:+.3f} allowed"
    if all(map(math.isfinite, (estimate.value, estimate.low, estimate.high))):
        kind = "up" if estimate.low > 0 else "down" if estimate.high < 0 else "level"
        parts.append(_LINE.format(f"span {kind}", on.at(estimate.low), on.at(estimate.high), 10, 10))
        parts.append(_LINE.format(f"point {kind}", on.at(estimate.value), on.at(estimate.value), 4, 16))
    return _FRAME.format("interval", 20, label, Markup("").join(parts))


def spans(by_source: Mapping[str, Wins], sources: Sequence[str], on: Axis, limit: float | None) -> Markup:
    """Shares by source, each with its interval, where it has one, on a line of its own, coloured by its place
    in ``sources``."""
    height = 9 * len(by_source) + 3
    parts = [] if limit is None else [_LINE.format("limit", on.at(limit), on.at(limit), 0, height)]
    words = []
    for order, (name, one) in enumerate(by_source.items()):
        value, low, high = one.share, one.low, one.high
        if value is None:
            continue
        y, colour = 6 + 9 * order, f"series-{sources.index(name) % 3}"
        said = "no interval"
        if low is not None and high is not None:
            parts.append(_LINE.format(f"span {colour}", on.at(low), on.at(high), y, y))
            said = f"{number(low)} to {number(high)}"
        parts.append(_LINE.format(f"point {colour}", on.at(value), on.at(value), y - 3, y + 3))
        words.append(f"{name} {number(value)} ({said})")
    return _FRAME.format(f"spans rows-{len(by_source)}", height, "; ".join(words), Markup("").join(parts))
