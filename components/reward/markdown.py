"""The reward card as Markdown, for people and the Kubeflow UI: the numbers of card.json, none of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from components.reward.card import Card
from components.reward.gate import Check

_COLUMNS = {
    "world": "miniature world",
    "footage": "real footage",
    "all": "both",
    "heldout_types": "both, distortions never trained on",
    "generated": "the generator's samples",
    "heldout_types_generated": "samples, distortions never trained on",
}
_FIGURES = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "rmse": "RMSE",
    "reference_above": "original above",
    "adjacent_ordered": "neighbours in order",
}
_WORST = 8


def as_markdown(card: Card, checks: Sequence[Check], refused: Sequence[str]) -> str:
    """The page: verdict, agreement on held-out content, baselines, attacks, the hardest distortions.

    Args:
        card: the measurements.
        checks: the gate's requirements.
        refused: the gate's reasons to refuse; empty if it is open.
    """
    verdict = "**Refused**: " + "; ".join(refused) if refused else "**Passed** every requirement of its gate."
    parts = ["# Reward card", verdict]
    parts.append(_table(["requirement", "met"], ([c.line(), _met(c)] for c in checks)))
    parts += ["## Agreement on held-out content", _agreement(card)]
    if card.judge is not None:
        parts.append(
            f"Rank correlation with the independent judge inside a prompt: {_number(card.judge.mean)} "
            f"[{_number(card.judge.low)}, {_number(card.judge.high)}] over {card.judge.clusters} prompts."
        )
    if card.baselines:
        names = [name for name in _COLUMNS if name in card.columns and _known(card.columns[name].srcc)]
        rows = [["this reward", *(_number(card.columns[n].srcc) for n in names)]]
        rows += [
            [rival.replace("_", " "), *(_number(columns[n].srcc) if n in columns else "-" for n in names)]
            for rival, columns in card.baselines.items()
        ]
        parts += ["## SRCC beside simple baselines", _table(["", *(_COLUMNS[n] for n in names)], rows)]
    attacks = list(dict.fromkeys(name for wins in card.attacks.values() for name in wins))
    if attacks:
        rows = [[s, *(_number(wins.get(a, math.nan)) for a in attacks)] for s, wins in card.attacks.items()]
        parts += [
            "## Degenerate clips scored below their honest originals",
            _table(["share of", *attacks], rows),
        ]
    hardest = _hardest(card)
    if hardest:
        parts += [
            f"## The {len(hardest)} distortions it sees worst",
            _table(["distortion", "original above, mean over sources"], hardest),
        ]
    if card.unavailable:
        parts += ["## Not measured", "\n".join(f"- {name}: {why}" for name, why in card.unavailable.items())]
    return "\n\n".join(parts) + "\n"


def _agreement(card: Card) -> str:
    names = [name for name in _COLUMNS if name in card.columns]
    rows = (
        [
            _COLUMNS[name],
            str(card.columns[name].clips),
            *(_number(getattr(card.columns[name], f)) for f in _FIGURES),
        ]
        for name in names
    )
    return _table(["content", "clips", *_FIGURES.values()], rows)


def _hardest(card: Card) -> list[list[str]]:
    means = {}
    for name, figures in card.by_type.items():
        above = [v for key, v in figures.items() if not key.endswith("_srcc") and _known(v)]
        if above:
            means[name] = sum(above) / len(above)
    return [[name, _number(value)] for name, value in sorted(means.items(), key=lambda m: m[1])[:_WORST]]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _met(check: Check) -> str:
    return {True: "yes", False: "NO", None: "unavailable"}[check.passed]


def _known(value: float) -> bool:
    return math.isfinite(value)


def _number(value: float) -> str:
    return f"{value:.3f}" if _known(value) else "-"
