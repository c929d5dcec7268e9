"""The comparison as a plain table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from components.evaluation.comparison.paired import Paired
from components.evaluation.comparison.verdict import Verdict
from components.runtime.stats import CONFIDENCE, Interval
from components.runtime.tables import columns


def as_table(verdict: Verdict, unavailable: Mapping[str, str]) -> str:
    """Base beside aligned, the change with its interval, the win rates, the rules that fail."""
    percent = f"{100 * CONFIDENCE:g} %"
    rows: list[tuple[str, ...]] = [("", "base", "aligned", f"change [{percent} interval]", "p (Holm)")]
    rows.append(_row("training reward", verdict.reward))
    if verdict.judge is not None:
        rows.append(_row("oracle judge", verdict.judge))
    rows += [_row(name, paired, verdict.p_holm[name]) for name, paired in verdict.dimensions.items()]
    for name, figures, ratio in (
        ("motion (px per step)", verdict.motion, verdict.motion_ratio),
        ("diversity", verdict.diversity, verdict.diversity_ratio),
    ):
        rows.append((name, f"{figures[0]:.4f}", f"{figures[1]:.4f}", f"x {span(ratio)}", ""))
    lines = [*columns(rows, left=(0, 3)), ""]
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


def _row(name: str, paired: Paired, p_value: float | None = None) -> tuple[str, ...]:
    change = f"{paired.difference.value:+.4f} {ends(paired.difference, '+.4f')}"
    p_shown = "" if p_value is None else f"{p_value:.4f}"
    return name, f"{paired.base_mean:.4f}", f"{paired.aligned_mean:.4f}", change, p_shown
