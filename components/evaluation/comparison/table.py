"""The comparison as a plain table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from components.evaluation.comparison.paired import Paired
from components.evaluation.comparison.verdict import Verdict
from components.runtime.stats import CONFIDENCE, Interval


def as_table(verdict: Verdict, unavailable: Mapping[str, str]) -> str:
    """Base beside aligned, the change with its interval, the win rates, the rules that fail."""
    percent = f"{100 * CONFIDENCE:g} %"
    lines = [f"{'':24}{'base':>9}{'aligned':>10}   {f'change [{percent} interval]':30}{'p (Holm)':>9}"]
    lines.append(_row("training reward", verdict.reward))
    if verdict.judge is not None:
        lines.append(_row("oracle judge", verdict.judge))
    lines += [_row(name, paired, verdict.p_holm[name]) for name, paired in verdict.dimensions.items()]
    for name, figures, ratio in (
        ("motion (px per step)", verdict.motion, verdict.motion_ratio),
        ("diversity", verdict.diversity, verdict.diversity_ratio),
    ):
        lines.append(f"{name:24}{figures[0]:9.4f}{figures[1]:10.4f}   x {span(ratio)}")
    lines.append("")
    for name, judged in (("training reward", verdict.reward), ("oracle judge", verdict.judge)):
        if judged is None:
            lines.append(f"aligned wins by {name}: unavailable")
        else:
            counts = f"{judged.wins} won, {judged.ties} tied, {judged.losses} lost of {judged.pairs}"
            lines.append(f"aligned wins by {name}: {span(judged.rate)} ({counts})")
    lines += [f"rule failed: {check.reason}" for check in verdict.broken]
    if unavailable:
        lines.append(f"unavailable (reasons in the report): {', '.join(unavailable)}")
    lines.append(verdict.headline)
    return "\n".join(lines) + "\n"


def span(found: Interval) -> str:
    """``0.710 [0.630, 0.780]``."""
    return f"{found.value:.3f} {ends(found)}"


def ends(found: Interval, form: str = ".3f") -> str:
    """``[0.630, 0.780]``, or that there is no interval."""
    return f"[{found.low:{form}}, {found.high:{form}}]" if found.known else "[not shown]"


def _row(name: str, paired: Paired, p_value: float | None = None) -> str:
    change = f"{paired.difference.value:+.4f} {ends(paired.difference, '+.4f')}"
    end = "" if p_value is None else f"{p_value:9.4f}"
    return f"{name:24}{paired.base_mean:9.4f}{paired.aligned_mean:10.4f}   {change:30}{end}".rstrip()
