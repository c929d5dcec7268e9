"""Fills the report's templates. Every text goes through autoescape: prompts and file names are not ours."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from torch import Tensor

from components.evaluation.comparison.measure import NO_ORACLE, Side
from components.evaluation.comparison.verdict import Verdict
from components.evaluation.report import charts
from components.evaluation.report import svg_marks as marks
from components.evaluation.report.recommendation import limits, recommend
from components.evaluation.report.reward_section import RewardPage
from components.evaluation.report.side_by_side import ExamplePair, as_videos
from components.reward.refresh.versions import RewardVersion
from components.runtime.artifacts.manifest import Manifest
from components.runtime.io.page_slots import DECISION, OUTCOME, slot
from components.runtime.stats import CONFIDENCE

ASSETS = Path(__file__).parent / "assets"
RULES = {
    "best": "the pairs whose figure rose most from base to aligned",
    "worst": "the pairs whose figure fell most (or rose least)",
    "random": "drawn from the rest by the run's seed",
}


@dataclass(frozen=True)
class PageContent:
    """What the page is made of.

    Attributes:
        verdict: the comparison.
        base: what was measured of the base model, and how.
        shown: the pairs to show.
        chosen_by: the figure that chose best and worst.
        log: training curves of the alignment by column.
        reward: what the reward step measured.
        totals: VBench totals of both sides or why there are none.
        provenance: name and value pairs.
        sources: manifests of the artifacts that were read, by step.
        setting: prompts, seeds and the like, in words.
        versions: of the reward during the alignment.
    """

    verdict: Verdict
    base: Side
    shown: list[ExamplePair]
    chosen_by: str
    log: dict[str, list[float]]
    reward: RewardPage
    totals: str
    provenance: list[tuple[str, str]]
    sources: Mapping[str, Manifest]
    setting: str
    versions: list[RewardVersion] = field(default_factory=list)

    @property
    def unavailable(self) -> dict[str, str]:
        """Why, by figure."""
        missing = {"oracle judge": NO_ORACLE} if self.verdict.judge is None else {}
        return missing | self.base.unavailable


def render(content: PageContent, base: Tensor, aligned: Tensor, fps: float) -> str:
    """The page as text.

    Args:
        content: what is said.
        base: the base model's clips, uint8 (N, T, 3, H, W); ``content.shown`` names places among the N.
        aligned: the same of the aligned model.
        fps: frames per second of both.
    """
    environment = Environment(
        loader=PackageLoader("components.evaluation.report", "assets"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "signed": partial(_figure, sign=True), "words": _words}
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    groups, shrink = _groups(content.shown, base, aligned, fps)
    verdict = content.verdict
    allowed = limits(verdict)
    aligned_with = content.sources["alignment"].params if "alignment" in content.sources else {}
    changes = [paired.difference for paired in verdict.dimensions.values()]
    if verdict.judge is not None:
        changes.append(verdict.judge.difference)
    return environment.get_template("page.html.j2").render(
        m=content,
        v=verdict,
        recommendation=recommend(verdict),
        groups=groups,
        shrink=shrink,
        fps=fps,
        frames=base.shape[1],
        limits=allowed,
        axis=marks.axis(changes, list(allowed.values())),
        lowest=marks.Axis(_lowest(content.reward), 1.005),
        marks=marks,
        slot=slot,
        OUTCOME=OUTCOME,
        DECISION=DECISION,
        curves=charts.curves(content.log, notes={"Loss": charts.loss_note(aligned_with)}),
        more_curves=charts.curves(content.log, charts.MORE),
        reward_curves=charts.curves(content.reward.log, charts.REWARD, "step"),
        percent=f"{100 * CONFIDENCE:g} %",
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _groups(
    shown: list[ExamplePair], base: Tensor, aligned: Tensor, fps: float
) -> tuple[list[dict[str, Any]], int]:
    """The shown pairs with their videos, by the rule that chose them, and how much smaller they are shown."""
    videos, shrink = as_videos(base, aligned, [one.place for one in shown], fps)
    groups = []
    for group, rule in RULES.items():
        pairs = [
            {"pair": one, "video": video}
            for one, video in zip(shown, videos, strict=True)
            if one.group == group
        ]
        if pairs:
            groups.append({"name": group, "rule": rule, "pairs": pairs})
    return groups, shrink


def _lowest(reward: RewardPage) -> float:
    """Where the axis of the attacks begins: a tenth below the lowest end of an interval."""
    lows = [one.low for _, row in reward.attacks for one in row.values() if one.low is not None]
    return max(0.0, math.floor(10 * min([0.8, *lows]) - 1e-9) / 10)


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline style or script by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _figure(value: float | None, places: int = 3, sign: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return "n/a"
    text = f"{value:+.{places}f}" if sign else f"{value:.{places}f}"
    if not text.strip("+-0."):  # what rounds to nothing has no sign
        return text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def _words(name: str) -> str:
    return name.replace("_", " ")
