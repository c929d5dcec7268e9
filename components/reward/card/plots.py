"""Pictures of a reward card and of its training."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from components.reward.card.agreement import counted_clips, masks
from components.reward.card.card import Card
from components.reward.card.correlation import fit_logistic
from components.reward.card.heldout import PRISTINE
from components.reward.card.measure import CardMeasurements
from components.reward.distortions import FAMILIES, REGISTRY
from components.reward.ladders.ladder import Ladders
from components.reward.model.training import Curve

FAMILY_INKS = {"spatial": "#3b6ea5", "codec": "#b07d2b", "temporal": "#3b8a5a", "diffusion": "#a53b6e"}
SOURCE_INKS = {"world": "#4c5fb0", "footage": "#2f8f6b", "generated": "#d0782f"}
COLUMN_NAMES = {
    "world": "miniature world",
    "footage": "real footage",
    "all": "world and footage",
    "heldout_types": "types never trained on",
}
#: Marks distortions that were never trained on.
HELD_OUT = "*"
#: In the names of the gate's requirements on attacks.
BELOW = "_below_original"
#: Small panels in a row.
ACROSS = 9


def draw(folder: Path, measured: CardMeasurements, curve: Curve | None = None) -> None:
    """Write labels.png, types.png, ladders.png, attacks.png and baselines.png into a folder; with the
    training's curve also training.png and training.csv."""
    folder.mkdir(exist_ok=True)
    card, ladders, scores = measured.card, measured.ladders, measured.scores
    heldout = set(card.data.get("heldout_types", ()))
    _labels(folder / "labels.png", card, ladders, scores, heldout)
    _types(folder / "types.png", card, heldout)
    _ladders(folder / "ladders.png", ladders, scores, heldout)
    _attacks(folder / "attacks.png", card)
    if card.baselines:
        _baselines(folder / "baselines.png", card)
    if curve:
        with (folder / "training.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(curve[0]))
            writer.writeheader()
            writer.writerows(curve)
        _training(folder / "training.png", curve)


def _training(file: Path, curve: Curve) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    steps = [row["step"] for row in curve]
    names = {"rank": "order inside ladders", "correlation": "agreement with labels", "aspects": "aspects"}
    for (name, text), ink in zip(names.items(), ("#a53b6e", "#3b6ea5", "#999999"), strict=True):
        values = [row[name] for row in curve if name in row]
        if len(values) == len(steps):
            axes.plot(steps, values, label=text, color=ink, linewidth=1.2)
    axes.set(xlabel="training step", ylabel="loss", title="Training losses")
    if all(row.get("correlation", 1.0) > 0 for row in curve):
        axes.set_yscale("log")
    axes.legend(frameon=False)
    _plain(axes)
    _save(figure, file)


def _labels(file: Path, card: Card, ladders: Ladders, scores: np.ndarray, heldout: set[str]) -> None:
    """Score and label of every counted clip, one panel a column, with the curve that PLCC is taken after."""
    counted = counted_clips(ladders)
    labels = ladders.labels.numpy()
    family = np.asarray([REGISTRY[recipe[0]].family for recipe in ladders.recipes])
    rows = masks(ladders, set(REGISTRY) - heldout)
    names = [name for name in COLUMN_NAMES if name in card.columns] or ["all"]
    figure, panels = plt.subplots(
        1, len(names), figsize=(4.1 * len(names), 4.3), sharex=True, sharey=True, squeeze=False
    )
    for name, axes in zip(names, panels[0], strict=True):
        mask = rows[name][:, None] & counted
        # In random order: drawn one family after the other, the last would hide the rest.
        order = np.random.default_rng(0).permutation(int(mask.sum()))
        kinds = np.broadcast_to(family[:, None], mask.shape)[mask][order]
        axes.scatter(
            scores[mask][order], labels[mask][order], s=6, alpha=0.45, linewidths=0,
            c=[FAMILY_INKS[kind] for kind in kinds],
        )  # fmt: skip
        fit = fit_logistic(scores[mask], labels[mask])
        if fit is not None:
            across = np.linspace(scores[mask].min(), scores[mask].max(), 200)
            axes.plot(across, fit(across), color="black", linewidth=1.6)
        column = card.columns.get(name)
        if column is not None:
            figures = [f"{key.upper()} {_number(getattr(column, key))}" for key in ("srcc", "plcc", "rmse")]
            axes.set_title(f"{COLUMN_NAMES[name]}, {column.clips} clips\n{'   '.join(figures)}", fontsize=10)
        axes.set_xlabel("score")
        _plain(axes)
    panels[0][0].set(ylabel="label", ylim=(-0.03, 1.03))
    handles = [_dot(FAMILY_INKS[family], family) for family in FAMILIES]
    handles.append(Line2D([], [], color="black", label="fitted logistic"))
    _legend_below(figure, handles)
    _save(figure, file)


def _types(file: Path, card: Card, heldout: set[str]) -> None:
    """Rank correlation with the label for every distortion, a point for world and one for footage: together
    they could hide one that is ranked backwards."""

    points = {
        name: {kind: srcc for kind in PRISTINE if (srcc := row.get(f"srcc_{kind}")) is not None}
        for name, row in card.by_type.items()
    }
    by_family = {
        family: sorted(
            (name for name in points if REGISTRY[name].family == family and points[name]),
            key=lambda name: min(points[name].values()),
        )
        for family in FAMILIES
    }
    most = max(1, *(len(names) for names in by_family.values()))
    figure, panels = plt.subplots(1, len(FAMILIES), figsize=(15, 0.25 * most + 1.8))
    low = min([0.0, *(value for point in points.values() for value in point.values())])
    for (family, names), axes in zip(by_family.items(), panels, strict=True):
        # Aligned at the top, and all rows of one height.
        places = np.arange(len(names)) + most - len(names)
        for place, name in zip(places, names, strict=True):
            point = points[name]
            axes.plot([min(point.values()), max(point.values())], [place] * 2, color="#bbbbbb", linewidth=1.6)
            for kind, value in point.items():
                axes.plot(
                    value, place, marker="o", markersize=5.5, color=SOURCE_INKS[kind],
                    markerfacecolor="white" if name in heldout else SOURCE_INKS[kind],
                )  # fmt: skip
        axes.set_yticks(places, [n + HELD_OUT * (n in heldout) for n in names], fontsize=9)
        axes.set(ylim=(-0.7, most - 0.3), xlim=(max(-1.03, low - 0.05), 1.03), xlabel="SRCC with the label")
        axes.set_title(f"{family} ({len(names)})", color=FAMILY_INKS[family], fontsize=11)
        axes.set_xticks(np.arange(math.ceil(max(-1.0, low) * 5) / 5, 1.01, 0.2))
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.axvline(0, color="#666666", linewidth=0.8)
        _plain(axes)
    figure.suptitle(
        "Agreement with the label by distortion, on each source; left of 0: ranked backwards   "
        f"(hollow, {HELD_OUT}: never trained on)",
        fontsize=12,
    )
    kinds = [kind for kind in PRISTINE if any(kind in point for point in points.values())]
    handles = [_dot(SOURCE_INKS[kind], COLUMN_NAMES[kind]) for kind in kinds]
    if handles:
        _legend_below(figure, handles)
    _save(figure, file)


def _ladders(file: Path, ladders: Ladders, scores: np.ndarray, heldout: set[str]) -> None:
    """Mean score by level for every distortion and source, below the original's: each line should fall."""
    present = {recipe[0] for recipe in ladders.recipes}
    names = [n for family in FAMILIES for n in REGISTRY if REGISTRY[n].family == family and n in present]
    sources = list(dict.fromkeys(ladders.sources))
    unit = scores.std() or 1.0
    down = -(-len(names) // ACROSS)
    size = (1.62 * ACROSS, 1.45 * down + 1.0)
    figure, panels = plt.subplots(down, ACROSS, figsize=size, sharex=True, sharey=True, squeeze=False)
    kinds = np.asarray([recipe[0] for recipe in ladders.recipes])
    source = np.asarray(ladders.sources)
    for place, axes in enumerate(panels.flat):
        if place >= len(names):
            axes.set_axis_off()
            continue
        name = names[place]
        axes.axhline(0, color="#bbbbbb", linewidth=0.7)
        for kind in sources:
            rows = (kinds == name) & (source == kind)
            if rows.any():
                fall = (scores[rows] - scores[rows][:, :1]).mean(0) / unit
                axes.plot(range(scores.shape[1]), fall, color=SOURCE_INKS[kind], linewidth=1.3)
        ink = FAMILY_INKS[REGISTRY[name].family]
        axes.set_title(name + HELD_OUT * (name in heldout), fontsize=8, color=ink, pad=3)
        axes.tick_params(labelsize=7, length=2)
        axes.set_xticks(range(scores.shape[1]))
        _plain(axes)
        if place + ACROSS >= len(names):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("level", fontsize=7, labelpad=1)
    # Margins by hand, in inches: laying out dozens of panels takes seconds.
    wide, high = size
    sides = {"left": 0.75 / wide, "right": 1 - 0.1 / wide, "bottom": 0.75 / high, "top": 1 - 0.6 / high}
    figure.subplots_adjust(**sides, wspace=0.12, hspace=0.42)
    figure.supylabel("score minus the original's, standard deviations", fontsize=10, x=0.15 / wide)
    title = f"Mean score along the ladders: every line should fall   ({HELD_OUT} never trained on)"
    figure.suptitle(title, fontsize=12, y=1 - 0.15 / high)
    handles: list[Line2D | Patch] = [Line2D([], [], color=SOURCE_INKS[kind], label=kind) for kind in sources]
    handles += [Patch(color=FAMILY_INKS[family], label=family) for family in FAMILIES]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _attacks(file: Path, card: Card) -> None:
    """Share of honest originals above their attacked copies, with its interval, by attack and source, and
    what the gate asks for."""
    names = list(card.pooled())
    sources = list(card.attacks)
    figure, axes = plt.subplots(figsize=(8.5, 0.46 * max(1, len(names)) + 1.2))
    height = 0.72 / max(1, len(sources))
    lowest = 0.9
    for place, name in enumerate(names):
        if place % 2:
            axes.axhspan(place - 0.5, place + 0.5, color="#f3f3f3", linewidth=0)
        for number, source in enumerate(sources):
            wins = card.attacks[source].get(name)
            if wins is None or not wins.clips or wins.share is None:
                continue
            at = place + (number - (len(sources) - 1) / 2) * height
            low = wins.share if wins.low is None else wins.low
            high = wins.share if wins.high is None else wins.high
            lowest = min(lowest, low)
            # Points, not bars: the axis begins where it is of interest, and a bar would have to begin at 0.
            axes.plot([low, high], [at, at], color=SOURCE_INKS[source], linewidth=2.2, alpha=0.45)
            axes.plot(wins.share, at, marker="o", markersize=5, color=SOURCE_INKS[source])
    wanted = sorted(
        {c.least for c in card.gate.checks if BELOW in c.name and c.least is not None} if card.gate else ()
    )
    for least in wanted:
        lowest = min(lowest, least)
        axes.axvline(least, color="#a53b3b", linewidth=1, linestyle="--")
    asked = f"; dashed: the gate asks for {', '.join(f'{least:g}' for least in wanted)}" if wanted else ""
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=9)
    axes.set(
        ylim=(len(names) - 0.5, -0.5),
        xlim=(math.floor(lowest * 20) / 20 - 0.005, 1.006),
        xlabel=f"honest original scored above the attacked copy, with 95 % interval{asked}",
    )
    axes.set_title("Attacks", fontsize=12)
    _plain(axes)
    _legend_below(
        figure, [Line2D([], [], marker="o", color=SOURCE_INKS[source], label=source) for source in sources]
    )
    _save(figure, file)


def _baselines(file: Path, card: Card) -> None:
    """The reward beside the baselines: rank correlation with the label, and neighbours in order."""
    rivals = {"this reward": card.columns, **card.baselines}
    inks = ["#222222", "#3b6ea5", "#b07d2b", "#3b8a5a", "#a53b6e"]
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.2))
    titles = {"srcc": "SRCC with the label", "adjacent_ordered": "neighbouring levels in order"}
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        columns = [n for n, column in card.columns.items() if getattr(column, key) is not None]
        width = 0.8 / len(rivals)
        for number, rival in enumerate(rivals.values()):
            values = np.array([getattr(rival.get(n), key, None) for n in columns], float)
            at = np.arange(len(columns)) + (number - (len(rivals) - 1) / 2) * width
            axes.bar(at, values, 0.9 * width, color=inks[number % len(inks)])
        axes.set_xticks(range(len(columns)), [n.replace("_", "\n") for n in columns], fontsize=8)
        axes.axhline(0.0 if key == "srcc" else 0.5, color="#666666", linewidth=0.8)
        axes.set_title(title, fontsize=11)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        _plain(axes)
    handles = [
        Patch(color=inks[i % len(inks)], label=rival.replace("_", " ")) for i, rival in enumerate(rivals)
    ]
    _legend_below(figure, handles)
    _save(figure, file)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _dot(ink: str, label: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=ink, label=label)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _legend_below(figure: plt.Figure, handles: Sequence[Line2D | Patch]) -> None:
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0)}
    figure.legend(handles=list(handles), ncols=len(handles), frameon=False, **place)


def _save(figure: plt.Figure, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, dpi=110, bbox_inches="tight")
    plt.close(figure)
