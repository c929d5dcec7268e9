"""Result files in VBench's own form, with the videos they speak of."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from components.evaluation.comparison.measure import Side
from components.evaluation.samples import Request
from components.evaluation.vbench.files import (
    METHOD,
    NAME_BYTES,
    OURS,
    VARIANT,
    Result,
    VideoResult,
    stem,
    video_name,
)
from components.video.clip import Clip
from components.video.codec import write_video


def video_names(asked: Sequence[Request]) -> list[str]:
    """VBench's ``{prompt}-{index}.mp4``, kept safe for a file system and unique."""
    names: list[str] = []
    taken: set[str] = set()
    for one in asked:
        name = video_name(one.prompt, one.index)
        if name in taken:
            told_apart = re.sub(r"[^A-Za-z0-9_-]", "_", one.prompt_id)[:40]
            name = f"{stem(one.prompt)[: NAME_BYTES // 4]} ({told_apart})-{one.index}.mp4"
        taken.add(name)
        names.append(name)
    return names


def write_videos(folder: Path, frames: Tensor, fps: float, names: Sequence[str]) -> None:
    """Write uint8 (N, T, 3, H, W) as one flat folder of H.264 files at their own size."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip, name in zip(frames, names, strict=True):
        write_video(Clip(clip, fps), folder / name, scale=1)


def as_results(side: Side, paths: Sequence[str], compat: bool = False) -> dict[str, Result]:
    """One side's measured dimensions for a VBench result file.

    Per-video entries carry ``method`` where the figure is not what VBench's own models would give, and
    ``variant`` where its definition is ours (without ``compat``). Videos to which a dimension does not apply
    are left out of its list and of its mean.
    """
    found: dict[str, Result] = {}
    for name, scores in side.scores.items():
        used = side.used[name]
        more = {METHOD: used.method} if used.method else {}
        more |= {VARIANT: OURS} if used.variant and not compat else {}
        videos = tuple(
            VideoResult(path, float(score), more)
            for path, score in zip(paths, scores, strict=True)
            if math.isfinite(score)
        )
        found[name] = Result(sum(video.value for video in videos) / len(videos), videos)
    return found


def pair_rows(asked: Sequence[Request], base: Side, aligned: Side) -> list[dict[str, Any]]:
    """One row per pair with every figure of both sides; null where one does not apply."""
    rows = []
    for place, one in enumerate(asked):
        row: dict[str, Any] = {
            "prompt_id": one.prompt_id,
            "prompt": one.prompt,
            "index": one.index,
            "seed": one.seed,
        }
        for name, side in (("base", base), ("aligned", aligned)):
            figures = {
                "reward": side.reward,
                "motion": side.motion,
                "flow": side.flow,
                "diversity": side.diversity,
            } | side.scores
            if side.judge is not None:
                figures |= {"judge": side.judge} | {
                    f"judge_{part}": values for part, values in side.parts.items()
                }
            row[name] = {key: _number(values[place]) for key, values in figures.items()}
        rows.append(row)
    return rows


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
