"""The pictures: all there, showing what the card holds, on small and on missing data."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.lines import Line2D
from PIL import Image

from components.reward.card import plots
from components.reward.card.agreement import by_family, by_type, columns, masks
from components.reward.card.card import Card, Wins
from components.reward.card.gate import decide
from components.reward.card.measure import CardMeasurements
from components.reward.distortions import REGISTRY
from components.reward.ladders.ladder import Ladders
from components.reward.params import GateParams

HELD_OUT = "crawl"


def measured(
    sources: tuple[str, ...] = ("world", "footage", "generated"), every: int = 1
) -> CardMeasurements:
    """A card of every `every`-th distortion."""
    rng = np.random.default_rng(0)
    types = list(REGISTRY)[::every]
    names = [name for name in types for _ in sources]
    count = len(names)
    labels = np.tile(np.linspace(1, 0.05, 6), (count, 1)) ** rng.uniform(0.5, 2, (count, 1))
    ladders = Ladders(
        frames=torch.zeros(count, 6, 0, dtype=torch.uint8),
        levels=torch.arange(6.0).expand(count, -1),
        labels=torch.from_numpy(labels).float(),
        similarity=torch.from_numpy(labels).float(),
        statistics=torch.zeros(count, 6, 1),
        seen=torch.triu(torch.ones(count, 6, 6), 1),
        recipes=[(name,) for name in names],
        sources=list(sources) * len(types),
        contents=[f"c{i}" for i in range(count)],
    )
    generated = [source == "generated" for source in ladders.sources]
    ladders.labels[generated] = float("nan")
    scores = 10 * labels + rng.normal(size=labels.shape)
    card = Card(data={"heldout_types": [HELD_OUT]})
    rows = masks(ladders, set(REGISTRY) - {HELD_OUT})
    card.columns = columns(scores, ladders, rows)
    card.baselines = {"niqe": columns(rng.normal(size=scores.shape), ladders, rows)}
    card.by_type, card.by_family = by_type(scores, ladders), by_family(scores, ladders)
    card.attacks = {
        source: {"frozen": Wins.counted(57, 60), "blank": Wins.counted(60, 60)} for source in sources
    }
    return CardMeasurements(card, ladders, scores, None)


CURVE = [{"step": float(s), "rank": 1 / s, "correlation": 0.5 / s, "aspects": 0.7} for s in (10, 20, 30)]


def texts(figure: plt.Figure) -> str:
    parts = [text.get_text() for axes in figure.axes for text in axes.texts]
    parts += [axes.get_title() for axes in figure.axes]
    parts += [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    return "\n".join(parts)


def at(line: Line2D, place: float) -> bool:
    """Whether a line is a single point at this height."""
    return len(line.get_ydata()) == 1 and float(line.get_ydata()[0]) == place


def test_every_picture_is_drawn(tmp_path: Path) -> None:
    plots.draw(tmp_path, measured(every=5), CURVE)
    names = {"labels", "types", "ladders", "attacks", "baselines", "training"}
    assert {path.stem for path in tmp_path.glob("*.png")} == names
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > 600 and np.asarray(picture.convert("L")).std() > 5, path.name
    assert (tmp_path / "training.csv").read_text().splitlines()[1] == "10.0,0.1,0.05,0.7"
    assert not plt.get_fignums()


def test_the_pictures_say_what_the_card_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[str, plt.Figure] = {}
    monkeypatch.setattr(plots.plt, "close", lambda figure: None)
    monkeypatch.setattr(plt.Figure, "tight_layout", lambda figure: None)
    monkeypatch.setattr(plt.Figure, "savefig", lambda figure, file, **_: figures.update({file.stem: figure}))
    found = measured()
    plots.draw(tmp_path, found)
    column = found.card.columns["footage"]
    assert f"SRCC {column.srcc:.3f}   PLCC {column.plcc:.3f}" in texts(figures["labels"])
    assert len(figures["labels"].axes) == 4
    rows = {
        label.get_text(): {line.get_color(): line.get_xdata()[0] for line in axes.lines if at(line, place)}
        for axes in figures["types"].axes
        for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    }
    assert len(rows) == len(REGISTRY) and f"{HELD_OUT}*" in rows
    for source in ("world", "footage"):
        shown = rows["blur"][plots.SOURCE_INKS[source]]
        assert shown == pytest.approx(found.card.by_type["blur"][f"srcc_{source}"])
    panels = {axes.get_title(): axes for axes in figures["ladders"].axes if axes.get_title()}
    assert set(panels) == {name + "*" * (name == HELD_OUT) for name in REGISTRY}
    lines = [line for line in panels["blur"].lines if len(line.get_xdata()) == 6]
    assert len(lines) == 3 and all(line.get_ydata()[0] == 0 > line.get_ydata()[-1] for line in lines)
    monkeypatch.undo()
    plt.close("all")


def test_the_line_beside_the_attacks_is_what_the_gate_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: dict[str, plt.Figure] = {}
    monkeypatch.setattr(plots, "_save", lambda figure, file: figures.update({file.stem: figure}))
    found = measured(every=20)
    for asked in (0.9, 0.75):
        found.card.gate = decide(found.card, GateParams(attacks=asked))
        plots.draw(tmp_path, found)
        (axes,) = figures["attacks"].axes
        dashed = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
        assert dashed == [asked] and f"asks for {asked:g}" in axes.get_xlabel()
        assert axes.get_xlim()[0] <= asked
    found.card.gate = None
    plots.draw(tmp_path, found)
    (axes,) = figures["attacks"].axes
    assert not [line for line in axes.lines if line.get_linestyle() == "--"]
    assert "dashed" not in axes.get_xlabel()
    plt.close("all")


def test_a_source_alone_is_enough(tmp_path: Path) -> None:
    plots.draw(tmp_path, measured(("generated",), every=20))
    assert {path.stem for path in tmp_path.glob("*.png")} >= {"labels", "types", "ladders", "attacks"}
    assert not (tmp_path / "training.png").exists()
