"""Rules that a decision is made by: a figure, the bounds it must keep, and how sure that must be.

A rule knows no step: it names a figure of a metrics.json. What it comes to is a `Check`, plain data that a
page, a table and a decision record show alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from components.runtime.params import Section

Absent = Literal["refuse", "skip"]
NO_INTERVAL = "it has no interval, so nothing is shown: an interval needs 10 prompts or more"


@dataclass(frozen=True)
class Figure:
    """An estimate and the ends of its confidence interval, None where there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Rule(Section):
    """One requirement on one figure."""

    metric: str = Field(min_length=1, description="name of the figure in a metrics.json")
    at_least: float | None = Field(None, description="smallest allowed value, in the metric's own unit")
    above: float | None = Field(None, description="the value must lie above this, in the metric's own unit")
    at_most: float | None = Field(None, description="largest allowed value, in the metric's own unit")
    proven: bool = Field(
        False, description="the whole interval must keep the bounds; otherwise the estimate must"
    )
    unless_refuted: bool = Field(
        False, description="any part of the interval that keeps the bounds is enough: doubt does not refuse"
    )
    when_absent: Absent = Field("refuse", description="what a missing metric means")

    @model_validator(mode="after")
    def _bounded(self) -> Rule:
        if self.at_least is None and self.at_most is None and self.above is None:
            raise ValueError("a rule needs at_least, above or at_most")
        if self.proven and self.unless_refuted:
            raise ValueError("a rule is either proven or unless_refuted")
        return self

    @property
    def bounds(self) -> str:
        """``>= 0.85 and <= 1.15``."""
        named = ((">=", self.at_least), (">", self.above), ("<=", self.at_most))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in named if bound is not None)

    @property
    def how(self) -> str:
        """How sure it must be, as an addition to the rule in words."""
        return ", whole interval" if self.proven else ", unless refuted" if self.unless_refuted else ""

    def allows(self, least: float, most: float) -> bool:
        """Whether all values from ``least`` to ``most`` keep the bounds."""
        return (
            (self.at_least is None or least >= self.at_least)
            and (self.above is None or least > self.above)
            and (self.at_most is None or most <= self.at_most)
        )

    def kept_by(self, figure: Figure) -> bool | None:
        """Whether a figure keeps the rule; None where a rule on the interval meets a figure without one."""
        if figure.low is None or figure.high is None:
            return None if self.proven else self.allows(figure.value, figure.value)
        if self.unless_refuted:  # the end of the interval that is nearest to the bound
            return self.allows(figure.high, figure.low)
        if self.proven:
            return self.allows(figure.low, figure.high)
        return self.allows(figure.value, figure.value)


class Margin(Section):
    """One figure in which the candidate must not be inferior to another model; higher is better."""

    metric: str = Field(min_length=1, description="name of the score, as `judge` in `aligned/judge`")
    margin: float = Field(0.0, ge=0, description="how far below the other it may lie, in its own unit")
    proven: bool = Field(
        False, description="the whole interval of the difference must keep the margin, not the estimate only"
    )
    unless_refuted: bool = Field(
        False, description="any part of the interval that keeps the margin is enough: a fall must be shown"
    )
    when_absent: Absent = Field("refuse", description="what a score that neither model has means")

    @model_validator(mode="after")
    def _one_way(self) -> Margin:
        self.rule()
        return self

    def rule(self) -> Rule:
        """The rule on the difference."""
        return Rule(
            metric=f"delta/{self.metric}",
            at_least=-self.margin,
            proven=self.proven,
            unless_refuted=self.unless_refuted,
            when_absent=self.when_absent,
        )


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

    @property
    def line(self) -> str:
        """``passed   motion_ratio >= 0.85 and <= 1.15: 1.0200 [0.9900, 1.0400]``."""
        word = {True: "passed", False: "FAILED", None: "skipped"}[self.passed]
        if self.part == "comparable":
            return f"{word:8} {self.rule}: {self.note}"
        figure = "absent" if self.value is None else f"{self.value:.4f}"
        if self.low is not None and self.high is not None:
            figure += f" [{self.low:.4f}, {self.high:.4f}]"
        return f"{word:8} {self.rule}: {figure}{f' ({self.note})' if self.note else ''}"

    @property
    def reason(self) -> str:
        """The line without its first word."""
        return self.line[8:].strip()


def apply(rule: Rule, figure: Figure | None, part: str, words: str, absent: str) -> Check:
    """Apply a rule to a figure.

    Args:
        figure: None where it was not measured.
        part: see `Check`.
        words: the rule in words.
        absent: why there is no figure.
    """
    bounds = {"at_least": rule.at_least, "above": rule.above, "at_most": rule.at_most, "metric": rule.metric}
    if figure is None:
        passed = None if rule.when_absent == "skip" else False
        return Check(part, words, None, passed, note=absent, shown=False, **bounds)  # type: ignore[arg-type]
    kept = rule.kept_by(figure)
    sure = None
    if figure.low is not None and figure.high is not None:
        sure = rule.allows(figure.low, figure.high)
    return Check(
        part,
        words,
        figure.value,
        bool(kept),
        figure.low,
        figure.high,
        NO_INTERVAL if kept is None else "",
        sure=sure,
        shown=kept is not None,
        **bounds,  # type: ignore[arg-type]
    )


def figure_of(metrics: Mapping[str, float], name: str) -> Figure | None:
    """A figure of a metrics.json with its interval, whose ends are ``x_low`` for x, ``delta_low/x`` for
    ``delta/x``."""
    if name not in metrics:
        return None
    group, slash, last = name.rpartition("/")
    low, high = (f"{group}_{end}/{last}" if slash else f"{name}_{end}" for end in ("low", "high"))
    return Figure(metrics[name], metrics.get(low), metrics.get(high))
