"""Rules of a decision: a figure, the bounds it must keep, and how sure that must be.

A rule knows no step: it names a figure of a metrics.json. Applied to the figure it gives a `Check`, plain
data that a page, a table and a decision record show alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from components.runtime.params import Section
from components.runtime.stats import FEWEST, Interval, without_interval

NO_INTERVAL = f"it has no interval, so nothing is shown: an interval needs {FEWEST} prompts or more"


class Strictness(Section):
    """How sure it must be that a bound is kept (by default the estimate keeps it), and what absence means."""

    renamed_keys: ClassVar[Mapping[str, str]] = {"proven": "confident"}
    confident: bool = Field(False, description="the whole 95 % interval must keep the bound")
    unless_refuted: bool = Field(
        False, description="any part of the interval that keeps the bound is enough: uncertainty passes"
    )
    when_absent: Literal["refuse", "skip"] = Field("refuse", description="what an absent figure means")

    @model_validator(mode="after")
    def _one_way(self) -> Strictness:
        if self.confident and self.unless_refuted:
            raise ValueError("a rule is either confident or unless_refuted")
        return self

    @property
    def how(self) -> str:
        """The strictness as an addition to the rule in words."""
        return ", whole interval" if self.confident else ", unless refuted" if self.unless_refuted else ""


class Rule(Strictness):
    """One requirement on one figure."""

    metric: str = Field(min_length=1, description="name of the figure in a metrics.json")
    at_least: float | None = Field(None, description="smallest allowed value, in the metric's own unit")
    above: float | None = Field(None, description="the value must lie above this, in the metric's own unit")
    at_most: float | None = Field(None, description="largest allowed value, in the metric's own unit")

    @model_validator(mode="after")
    def _bounded(self) -> Rule:
        if self.at_least is None and self.at_most is None and self.above is None:
            raise ValueError("a rule needs at_least, above or at_most")
        return self

    @property
    def bounds(self) -> str:
        """The bounds in signs, `>= 0.85 and <= 1.15`."""
        return _bounds(self)

    def decisive(self, figure: Interval) -> tuple[float, float] | None:
        """Smallest and largest value that must keep the bounds; None for `confident` without an interval."""
        if self.confident:
            return (figure.low, figure.high) if figure.known else None
        if self.unless_refuted and figure.known:  # the end of the interval that is nearest to the bound
            return figure.high, figure.low
        return figure.value, figure.value


class Margin(Strictness):
    """Non-inferiority in one figure: the candidate may lie so far below another model; higher is better."""

    metric: str = Field(min_length=1, description="name of the score, as `judge` in `aligned/judge`")
    margin: float = Field(0.0, ge=0, description="how far below the other it may lie, in its own unit")

    def words(self, other: str) -> str:
        """The margin in words: `judge at most 0.02 below the base, whole interval`."""
        return f"{self.metric} at most {self.margin:g} below {other}{self.how}"

    def check(self, difference: Interval | None, part: str, other: str, absent: str) -> Check:
        """Apply the margin to a difference, candidate minus `other`; see `apply`."""
        strictness = self.model_dump(exclude={"metric", "margin"})
        rule = Rule(metric=f"delta/{self.metric}", at_least=-self.margin, **strictness)
        return apply(rule, difference, part, self.words(other), absent)


@dataclass(frozen=True)
class Check:
    """One rule applied.

    Attributes:
        part: section of the gate file it stands in.
        rule: the rule in words.
        value: the figure it was applied to; None when it is absent.
        passed: whether it holds; None when it was skipped.
        low, high: ends of the figure's interval; None when it has none.
        note: why, where the figure alone does not say it.
        metric: name of the figure.
        at_least, above, at_most: the bounds.
        sure: whether the whole interval keeps the bounds; None where there is no interval.
        shown: whether there was what the rule is about: the figure, or its interval if the rule is on that.
        room: how far the value, or the interval's end that counts, lies inside the bounds, in the metric's
            own unit; negative outside.
    """

    part: str
    rule: str
    value: float | None
    passed: bool | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    metric: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    sure: bool | None = None
    shown: bool = True
    room: float | None = None

    @property
    def bounds(self) -> str:
        """The bounds in signs, `>= 0.85 and <= 1.15`."""
        return _bounds(self)

    @property
    def figure(self) -> Interval | None:
        """The figure that the rule was applied to."""
        if self.value is None or self.low is None or self.high is None:
            return None if self.value is None else without_interval(self.value)
        return Interval(self.value, self.low, self.high)

    @property
    def line(self) -> str:
        """The check in a line, `passed   motion_ratio >= 0.85 and <= 1.15: 1.0200 [0.9900, 1.0400]`."""
        word = {True: "passed", False: "FAILED", None: "skipped"}[self.passed]
        return f"{word:8} {self.reason}"

    @property
    def reason(self) -> str:
        """The line without its first word."""
        if self.part == "comparable":
            return f"{self.rule}: {self.note}"
        figure = "absent" if self.value is None else f"{self.value:.4f}"
        if self.low is not None and self.high is not None:
            figure += f" [{self.low:.4f}, {self.high:.4f}]"
        return f"{self.rule}: {figure}{f' ({self.note})' if self.note else ''}"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def apply(rule: Rule, figure: Interval | None, part: str, words: str, absent: str = "") -> Check:
    """Apply a rule to a figure.

    Args:
        figure: None where it was not measured.
        part: see `Check`.
        words: the rule in words.
        absent: why there is no figure.
    """
    stated: dict[str, Any] = rule.model_dump(include={"metric", "at_least", "above", "at_most"})
    if figure is None:
        passed = None if rule.when_absent == "skip" else False
        return Check(part, words, None, passed, note=absent, shown=False, **stated)
    (low, high), counted = figure.ends, rule.decisive(figure)
    return Check(
        part,
        words,
        figure.value,
        counted is not None and allows(rule, *counted),
        low=low,
        high=high,
        note=NO_INTERVAL if counted is None else "",
        sure=allows(rule, figure.low, figure.high) if figure.known else None,
        shown=counted is not None,
        room=_room(rule, *counted) if counted else None,
        **stated,
    )


def figure_of(metrics: Mapping[str, float], name: str) -> Interval | None:
    """A figure of a metrics.json with its interval; None where it is absent.

    The ends are named `x_low` for `x` and `delta_low/x` for `delta/x`; a figure without both has no interval.
    """
    if name not in metrics:
        return None
    group, slash, last = name.rpartition("/")
    ends = [f"{group}_{end}/{last}" if slash else f"{name}_{end}" for end in ("low", "high")]
    if not all(end in metrics for end in ends):
        return without_interval(metrics[name])
    return Interval(metrics[name], *(metrics[end] for end in ends))


def allows(stated: Rule | Check, least: float, most: float) -> bool:
    """Whether all values from `least` to `most` keep the bounds."""
    return (
        (stated.at_least is None or least >= stated.at_least)
        and (stated.above is None or least > stated.above)
        and (stated.at_most is None or most <= stated.at_most)
    )


def _bounds(stated: Rule | Check) -> str:
    named = ((">=", stated.at_least), (">", stated.above), ("<=", stated.at_most))
    return " and ".join(f"{sign} {bound:g}" for sign, bound in named if bound is not None)


def _room(rule: Rule, least: float, most: float) -> float:
    """Distance from `least` and `most` to the nearest bound, in the metric's unit; negative outside."""
    rooms = [least - bound for bound in (rule.at_least, rule.above) if bound is not None]
    return min([*rooms, math.inf if rule.at_most is None else rule.at_most - most])
