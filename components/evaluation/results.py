"""Result files in VBench's own form, with the videos they speak of."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from components.evaluation.measure import Side
from components.evaluation.samples import Request
from components.video.clip import Clip
from components.video.codec import write_video

#: Longest prompt kept in a file name, in bytes; with ``-{i}.mp4`` it stays below the 255 that file systems
#: allow.
NAME_BYTES = 200


def video_names(asked: Sequence[Request]) -> list[str]:
    """VBench's ``{prompt}-{index}.mp4``, kept safe for a file system and unique."""
    names: list[str] = []
    taken: set[str] = set()
    for one in asked:
        stem = (
            re.sub(r"[/\\\x00-\x1f]", "_", one.prompt)
            .encode()[:NAME_BYTES]
            .decode(errors="ignore")
            .strip(". ")
        )
        name = f"{stem or 'prompt'}-{one.index}.mp4"
        if name in taken:
            name = f"{stem} ({re.sub(r'[^A-Za-z0-9_-]', '_', one.prompt_id)[:40]})-{one.index}.mp4"
        taken.add(name)
        names.append(name)
    return names


def write_videos(folder: Path, frames: Tensor, fps: float, names: Sequence[str]) -> None:
    """Write uint8 (N, T, 3, H, W) as one flat folder of H.264 files at their own size."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip, name in zip(frames, names, strict=True):
        write_video(Clip(clip, fps), folder / name, scale=1)


def as_vbench(side: Side, paths: Sequence[str]) -> dict[str, list[Any]]:
    """``{dimension: [score, [{video_path, video_results}, ...]]}`` of one side's measured dimensions.

    Per-video entries carry ``method`` where the figure is not what VBench's own models would give. Yes-or-no
    results are 0 or 1. Videos to which a dimension does not apply are left out of its list and of its mean.
    """
    found: dict[str, list[Any]] = {}
    for name, scores in side.scores.items():
        method = side.used[name].method
        videos: list[dict[str, Any]] = []
        for path, score in zip(paths, scores, strict=True):
            if math.isfinite(score):
                videos.append(
                    {"video_path": path, "video_results": float(score)}
                    | ({"method": method} if method else {})
                )
        found[name] = [sum(video["video_results"] for video in videos) / len(videos), videos]
    return found


def write_results(file: Path, side: Side, paths: Sequence[str]) -> None:
    """Write one side's ``{name}_eval_results.json``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(as_vbench(side, paths), indent=1) + "\n", encoding="utf-8")


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
