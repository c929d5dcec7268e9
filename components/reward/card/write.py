"""Writing a reward card: one writer for the step, for rewards from elsewhere and for refreshed versions."""

from __future__ import annotations

import json
from pathlib import Path

from components.reward.card import gate
from components.reward.card.card import Card
from components.reward.card.markdown import as_markdown
from components.reward.card.measure import CardMeasurements
from components.reward.model.training import Curve
from components.reward.params import GateParams


def write_card(folder: Path, card: Card, about: str = "") -> None:
    """Write card.json and card.md into an existing folder.

    Args:
        about: a paragraph below the title of card.md.
    """
    (folder / "card.json").write_text(json.dumps(card.as_json(), indent=2) + "\n", encoding="utf-8")
    (folder / "card.md").write_text(as_markdown(card, about), encoding="utf-8")


def write_measured(
    folder: Path, measured: CardMeasurements, params: GateParams, curve: Curve | None = None
) -> list[str]:
    """Decide by the gate, which the card then holds, and write card.json, card.md and plots/.

    Args:
        curve: of the training, where there was one.

    Returns:
        The gate's reasons to refuse; empty if the reward passed.
    """
    from components.reward.card import plots

    card = measured.card
    card.gate = gate.decide(card, params)
    write_card(folder, card)
    plots.draw(folder / "plots", measured, curve)
    return card.gate.reasons
