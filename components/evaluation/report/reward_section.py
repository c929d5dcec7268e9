"""What the reward step measured about the reward that the alignment trained against, as the page shows it."""

from __future__ import annotations

import base64
import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from components.reward.card.card import Card, Wins

#: Figures of a reward without a card that are shown at once; the others are folded away.
FIRST = re.compile(
    r"srcc_(world|footage|all|heldout_types)|reference_above_all|\w+_below_original_generated|judge_.*"
)
#: Columns of a card in words, in the order in which they are shown.
COLUMNS = {
    "world": "miniature world",
    "footage": "real footage",
    "all": "world and footage",
    "heldout_types": "unseen distortions",
    "generated": "the generator's samples",
    "heldout_types_generated": "samples, unseen distortions",
}
#: Plots that the page draws itself from the card's figures.
DRAWN = {"attacks", "baselines", "training"}
PLOTS = {
    "types": "Agreement with the label by distortion type, one bar each, grouped by family.",
    "labels": "Reward score against the label of every held-out clip, with the fitted curve.",
    "ladders": "Mean score at each level of every distortion; the score should fall from left to right.",
}
#: Largest plot (bytes) that goes into the page.
LARGEST_PLOT = 2**20


@dataclass(frozen=True)
class Plot:
    """A picture of the reward step: its title, what it shows, and itself as a data URI."""

    title: str
    text: str
    image: str


@dataclass(frozen=True)
class RewardPage:
    """Everything about the reward.

    Attributes:
        card: None where the reward has none (one that was not trained here).
        figures: its flat metrics.
        log: its training curves by column.
        plots: its pictures.
        left_out: pictures too large for the page.
    """

    card: Card | None
    figures: dict[str, float]
    log: dict[str, list[float]] = field(default_factory=dict)
    plots: list[Plot] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def first(self) -> list[tuple[str, float]]:
        """The figures to show at once."""
        entries = sorted(self.figures.items())
        return [entry for entry in entries if FIRST.fullmatch(entry[0])] or entries

    @property
    def rest(self) -> list[tuple[str, float]]:
        """The others."""
        return [entry for entry in sorted(self.figures.items()) if entry not in self.first]

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Name and words of the card's columns, in order."""
        names = self.card.columns if self.card else {}
        known = [(name, words) for name, words in COLUMNS.items() if name in names]
        return known + [(name, name.replace("_", " ")) for name in names if name not in COLUMNS]

    @property
    def labelled(self) -> list[str]:
        """Names of the columns that have a correlation with the label."""
        columns = self.card.columns if self.card else {}
        return [name for name, column in columns.items() if column.srcc is not None]

    @property
    def sources(self) -> list[str]:
        """Kinds of clips that were attacked."""
        return list(self.card.attacks if self.card else {})

    @property
    def resisted(self) -> float | None:
        """The share of attacked clips that the gate wants below the honest ones."""
        checks = self.card.gate.checks if self.card and self.card.gate else []
        return next((check.least for check in checks if check.name.endswith("_below_original")), None)

    @property
    def attacks(self) -> list[tuple[str, dict[str, Wins]]]:
        """Attacks that ever worked, with the share by source; the one least resisted on any source first."""
        return [row for row in self._all_attacks() if any(wins.share != 1 for wins in row[1].values())]

    @property
    def harmless(self) -> list[str]:
        """Attacks that never worked on any source."""
        return [name for name, row in self._all_attacks() if all(wins.share == 1 for wins in row.values())]

    def _all_attacks(self) -> list[tuple[str, dict[str, Wins]]]:
        by_attack: dict[str, dict[str, Wins]] = {}
        for source, attacks in (self.card.attacks if self.card else {}).items():
            for name, wins in attacks.items():
                by_attack.setdefault(name, {})[source] = wins

        def weakest(row: tuple[str, dict[str, Wins]]) -> float:
            return min((wins.share for wins in row[1].values() if wins.share is not None), default=math.inf)

        return sorted(by_attack.items(), key=weakest)


def read_reward(folder: Path, figures: Mapping[str, float]) -> RewardPage:
    """Read what the page shows from a reward's artifact.

    Args:
        folder: the artifact, already checked against its manifest.
        figures: its metrics.json.

    Raises:
        InputError: card.json is not a card.
    """
    file = folder / "card.json"
    card = Card.read(file) if file.is_file() else None
    plots, left_out = [], []
    for picture in sorted((folder / "plots").glob("*.png")):
        name = picture.stem
        if card is not None and name in DRAWN:
            continue
        if picture.stat().st_size > LARGEST_PLOT:
            left_out.append(picture.name)
            continue
        image = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
        title = name.replace("_", " ").capitalize()
        plots.append(Plot(title, PLOTS.get(name, f"{title}, as the reward step drew it."), image))
    return RewardPage(card, dict(figures), read_log(folder / "plots" / "training.csv"), plots, left_out)


def read_log(file: Path) -> dict[str, list[float]]:
    """Columns of a CSV of numbers; a cell that is not one becomes NaN. No file: no curves."""
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [_number(row.get(name)) for row in rows] for name in (rows[0] if rows else {}) if name}


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan
