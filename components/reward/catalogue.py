"""The catalogue of distortions for people: a table, and a sheet that shows every one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.reward.distortions import FAMILIES, LEVELS, REGISTRY
from components.video import Clip, contact_sheet


def table() -> list[str]:
    """One line a distortion: family, name, the five levels with their unit, what it does."""
    rows = [
        (d.family, d.name, " ".join(f"{value:g}" for value in d.levels), d.unit, d.summary)
        for family in FAMILIES
        for d in REGISTRY.values()
        if d.family == family
    ]
    head = ("family", "name", "levels 1-5", "unit", "what it does")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in [head, *rows]
    ]


def sheet(clips: Tensor, names: Sequence[str], level: int, fps: float, seed: int = 0) -> object:
    """A contact sheet of every distortion at one level.

    Args:
        clips: uint8 (N, T, 3, H, W); distortions take turns over them.
        names: N labels of the clips.
        level: 1 to 5.
        fps: frame rate of the clips.

    Returns:
        A PIL image: the originals first, then one row a distortion and clip.
    """
    shown = [Clip(clip, fps) for clip in clips]
    labels = [f"original\n{name}" for name in names]
    for d in REGISTRY.values():
        damaged = d(clips.float() / 255.0, level, [seed + i for i in range(len(clips))])
        for clip in damaged:
            shown.append(Clip((clip * 255.0).round().to(torch.uint8), fps))
            labels.append(f"{d.family}: {d.name}\nlevel {level} of {LEVELS}: {d.levels[level - 1]:g}")
    return contact_sheet(shown, labels, title=f"Distortions at level {level}", cell=56)
