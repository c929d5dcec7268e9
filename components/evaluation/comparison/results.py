"""What a comparison leaves for programs and terminals: videos, VBench's result files, pairs, tables."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from components.evaluation.comparison.measure import NO_ORACLE, Side
from components.evaluation.comparison.table import as_table
from components.evaluation.comparison.verdict import Verdict, as_json
from components.evaluation.samples import Request
from components.evaluation.vbench.files import (
    NAME_BYTES,
    OURS,
    VBenchResult,
    VideoResult,
    stem,
    video_name,
    write_results,
)
from components.video.clip import Clip
from components.video.codec import write_video


@dataclass(frozen=True)
class ModelComparison:
    """Two models on the same requests.

    Attributes:
        requests: the N clips.
        frames: by side ("base", "aligned"), uint8 (N, T, 3, H, W).
        fps: frames per second.
        sides: by side, what was measured.
        verdict: base beside aligned.
        compat: whether dimensions are in VBench's published variant.
    """

    requests: Sequence[Request]
    frames: Mapping[str, Tensor]
    fps: float
    sides: Mapping[str, Side]
    verdict: Verdict
    compat: bool = False

    @property
    def unavailable(self) -> dict[str, str]:
        """Why each dimension that was not measured was not."""
        return self.sides["base"].unavailable


def write_comparison(folder: Path, comparison: ModelComparison, digests: Mapping[str, str]) -> str:
    """Write everything but the report page, and return the table.

    Args:
        folder: where.
        comparison: what was compared.
        digests: of the inputs, `Inputs.digests`.
    """
    names = video_names(comparison.requests)
    for name, side in comparison.sides.items():
        videos = folder / "videos" / name
        videos.mkdir(parents=True, exist_ok=True)
        for frames, video in zip(comparison.frames[name], names, strict=True):
            write_video(Clip(frames, comparison.fps), videos / video, scale=1)
        paths = [f"videos/{name}/{video}" for video in names]
        results = as_results(side, paths, comparison.compat)
        write_results(folder / "results" / f"{name}_eval_results.json", results)
    pairs = "".join(json.dumps(row) + "\n" for row in _pair_rows(comparison))
    (folder / "pairs.jsonl").write_text(pairs, encoding="utf-8")
    table = as_table(comparison.verdict, comparison.unavailable)
    (folder / "table.txt").write_text(table, encoding="utf-8")
    missing = {"judge": NO_ORACLE} if comparison.verdict.judge is None else {}
    content = as_json(comparison.verdict) | dict(digests) | {"unavailable": missing | comparison.unavailable}
    (folder / "comparison.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "plots").mkdir(exist_ok=True)
    with (folder / "plots" / "dimensions.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["dimension", "model", "score"])
        for name, paired in comparison.verdict.dimensions.items():
            writer.writerows([[name, "base", paired.base_mean], [name, "aligned", paired.aligned_mean]])
    return table


def video_names(requests: Sequence[Request]) -> list[str]:
    """VBench's ``{prompt}-{index}.mp4``, kept safe for a file system and unique."""
    names: list[str] = []
    for request in requests:
        name = video_name(request.prompt, request.index)
        if name in names:
            prompt_id = re.sub(r"[^A-Za-z0-9_-]", "_", request.prompt_id)[:40]
            name = f"{stem(request.prompt)[: NAME_BYTES // 4]} ({prompt_id})-{request.index}.mp4"
        names.append(name)
    return names


def as_results(side: Side, paths: Sequence[str], compat: bool = False) -> dict[str, VBenchResult]:
    """One side's measured dimensions for a VBench result file.

    A result names its method where the figure is not what VBench's own models would give, and its variant
    where its definition is ours (without ``compat``). Videos to which a dimension does not apply are left out
    of its list and of its mean.
    """
    results = {}
    for name, scores in side.scores.items():
        used = side.used[name]
        videos = tuple(
            VideoResult(path, float(score))
            for path, score in zip(paths, scores, strict=True)
            if math.isfinite(score)
        )
        mean = sum(video.value for video in videos) / len(videos)
        results[name] = VBenchResult(mean, videos, used.method, OURS if used.variant and not compat else "")
    return results


def _pair_rows(comparison: ModelComparison) -> list[dict[str, Any]]:
    """One row per pair with every figure of both sides; null where one does not apply."""
    figures = {}
    for name, side in comparison.sides.items():
        figures[name] = {
            "reward": side.reward,
            "motion": side.motion,
            "flow": side.flow,
            "diversity": side.diversity,
        } | side.scores
        if side.judge is not None:
            figures[name] |= {"judge": side.judge}
            figures[name] |= {f"judge_{part}": values for part, values in side.parts.items()}
    rows = []
    for place, request in enumerate(comparison.requests):
        row: dict[str, Any] = {
            "prompt_id": request.prompt_id,
            "prompt": request.prompt,
            "index": request.index,
            "seed": request.seed,
        }
        for name, columns in figures.items():
            row[name] = {key: _number(values[place]) for key, values in columns.items()}
        rows.append(row)
    return rows


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
