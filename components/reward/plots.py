"""Pictures of a reward card and of its training."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from components.reward.card import Card
from components.reward.distortions import FAMILIES, REGISTRY
from components.reward.ladders import Ladders
from components.reward.training import Curve

INKS = {"spatial": "#3b6ea5", "codec": "#8a6d3b", "temporal": "#3b8a5a", "diffusion": "#a53b6e"}
SOURCES = {"world": "#3b6ea5", "footage": "#3b8a5a", "generated": "#a5703b"}


def draw(folder: Path, card: Card, ladders: Ladders, scores: np.ndarray, curve: Curve) -> None:
    """Writes training.csv, training.png, ladders.png, types.png and labels.png into an existing folder."""
    _curve_csv(folder / "training.csv", curve)
    _training(folder / "training.png", curve)
    _ladders(folder / "ladders.png", ladders, scores)
    _types(folder / "types.png", card)
    _labels(folder / "labels.png", ladders, scores)


def _curve_csv(file: Path, curve: Curve) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(curve[0]) if curve else ["step"])
        writer.writeheader()
        writer.writerows(curve)


def _training(file: Path, curve: Curve) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    steps = [row["step"] for row in curve]
    for name, ink in (("rank", "#a53b6e"), ("correlation", "#3b6ea5")):
        axes.plot(steps, [row[name] for row in curve], label=f"{name} loss", color=ink, linewidth=1)
    axes.set(xlabel="training step", ylabel="loss", title="Reward training")
    axes.legend(frameon=False)
    _save(figure, file)


def _ladders(file: Path, ladders: Ladders, scores: np.ndarray) -> None:
    """Mean score by level for every distortion: each line should fall."""
    figure, panels = plt.subplots(1, len(FAMILIES), figsize=(15, 4), sharey=True)
    unit = scores.std() or 1.0
    for family, axes in zip(FAMILIES, panels, strict=True):
        for name in (d.name for d in REGISTRY.values() if d.family == family):
            rows = np.asarray([recipe == (name,) for recipe in ladders.recipes])
            if rows.any():
                fall = (scores[rows] - scores[rows][:, :1]).mean(0) / unit
                axes.plot(range(scores.shape[1]), fall, marker=".", label=name, linewidth=1)
        axes.axhline(0, color="#999", linewidth=0.6)
        axes.set(xlabel="level", title=family)
        axes.legend(fontsize=6, frameon=False)
    panels[0].set_ylabel("score minus the original's, standard deviations")
    _save(figure, file)


def _types(file: Path, card: Card) -> None:
    names = [name for name in REGISTRY if card.by_type.get(name)]
    figure, axes = plt.subplots(figsize=(8, 0.26 * len(names) + 1.2))
    for offset, (source, ink) in enumerate(SOURCES.items()):
        values = [card.by_type[name].get(source, float("nan")) for name in names]
        axes.scatter(values, np.arange(len(names)) + 0.2 * (offset - 1), s=14, color=ink, label=source)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(INKS[REGISTRY[name].family])
    axes.axvline(0.5, color="#999", linewidth=0.6)
    axes.set(
        xlim=(-0.02, 1.02),
        xlabel="original scored above its distorted copies",
        title="By distortion, held-out content",
    )
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    _save(figure, file)


def _labels(file: Path, ladders: Ladders, scores: np.ndarray) -> None:
    labels = ladders.labels.numpy()
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
    for source, axes in zip(("world", "footage"), panels, strict=True):
        rows = np.asarray([name == source for name in ladders.sources])
        axes.scatter(labels[rows].ravel(), scores[rows].ravel(), s=3, alpha=0.4, color=SOURCES[source])
        axes.set(xlabel="label", title=f"{source}, held-out content")
    panels[0].set_ylabel("score")
    _save(figure, file)


def _save(figure: plt.Figure, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
