"""VBench's file formats, both ways: names of videos, result files, and the suite they belong to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.runtime.errors import InputError
from components.runtime.io.untrusted import read_json

#: Longest prompt kept in a file name, in bytes; with ``-{i}.mp4`` it stays below the 255 that file systems
#: allow.
NAME_BYTES = 240
#: What a video's own entry is multiplied by, where VBench writes it on another scale than the score.
PER_VIDEO_SCALE = {"imaging_quality": 100.0}
#: No score of VBench's is larger as a fraction; a larger one is a percentage.
LARGEST = 1.5
#: Entries of a video that we add to VBench's.
METHOD, VARIANT, SEED = "method", "variant", "seed"
#: The variant of a figure whose definition is not the published one.
OURS = "ours"


def stem(prompt: str) -> str:
    """A prompt as the start of a file name: what file systems refuse becomes "_", what is too long is cut."""
    safe = re.sub(r"[/\\\x00-\x1f]", "_", prompt)
    return safe.encode()[:NAME_BYTES].decode(errors="ignore").strip(" ").lstrip(".") or "prompt"


def video_name(prompt: str, index: int, suffix: str = ".mp4") -> str:
    """VBench's ``{prompt}-{index}.mp4``."""
    return f"{stem(prompt)}-{index}{suffix}"


def prompt_of(name: str) -> str:
    """The prompt that a video's file name gives: without its number and suffix."""
    return re.sub(r"-\d+$", "", PurePosixPath(name).stem)


@dataclass(frozen=True)
class VideoResult:
    """One video's entry: its path, its value on the scale of the score, what else the file says of it."""

    path: str
    value: float
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file name without folders."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class VBenchResult:
    """One dimension of a result file.

    Attributes:
        score: fraction, not per cent.
        videos: the videos behind it.
        method: what replaced VBench's own models, "" where nothing did.
        variant: OURS where the definition differs from the published one by choice, else "".
    """

    score: float
    videos: tuple[VideoResult, ...] = ()
    method: str = ""
    variant: str = ""

    @property
    def measured_by(self) -> str:
        """How it was measured, for people: "VBench", "our variant", or what replaced VBench's models."""
        return ", ".join(filter(None, (self.method, "our variant" if self.variant else ""))) or "VBench"


def write_results(file: Path, results: Mapping[str, VBenchResult]) -> None:
    """Write ``{name}_eval_results.json``: ``{dimension: [score, [{video_path, video_results, ...}, ...]]}``.

    Entries carry ``method`` and ``variant`` where the figure was not measured in VBench's way.
    """
    content = {}
    for name, result in results.items():
        factor = PER_VIDEO_SCALE.get(name, 1.0)
        how = {key: value for key, value in ((METHOD, result.method), (VARIANT, result.variant)) if value}
        videos = [
            {"video_path": one.path, "video_results": one.value * factor, **one.more, **how}
            for one in result.videos
        ]
        content[name] = [result.score, videos]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_results(file: Path, with_videos: bool = True) -> dict[str, VBenchResult]:
    """Read ``{name}_eval_results.json``, VBench's or ours; yes-or-no values become 1 and 0.

    Args:
        file: the result file.
        with_videos: read each video's figure as well. Without, only the scores and how they were measured
            are read, also of files that do not list their videos.

    Raises:
        InputError: the file is missing, is not JSON, does not have this shape, holds percentages, or has a
            dimension whose videos were measured in different ways.
    """
    content = read_json(file, "results file")
    if not isinstance(content, dict):
        raise InputError(
            f"results file {file} holds {type(content).__name__}, expected an object of dimensions"
        )
    results = {}
    for name, entry in content.items():
        where = f"results file {file}: {name}"
        score, entries = entry, []
        if isinstance(entry, list) and entry:
            score = entry[0]
            entries = entry[1] if len(entry) > 1 and isinstance(entry[1], list) else []
        if not _is_number(score) or (with_videos and entry is score):
            raise InputError(f"{where} is {str(entry)[:60]!r}, expected [score, [per-video results]]")
        method, variant = _measured_in(entries, where)
        factor = PER_VIDEO_SCALE.get(name, 1.0)
        videos = tuple(_video(one, where, factor) for one in entries) if with_videos else ()
        highest = max((one.value for one in videos), default=-math.inf)
        if name in QUALITY + SEMANTIC and max(score, highest) > LARGEST:
            raise InputError(
                f"{where} is {max(score, highest):g}; scores are fractions, at most 1: this looks like per "
                "cent, divide by 100"
            )
        if videos and factor != 1 and factor * highest <= LARGEST < factor * score:
            raise InputError(
                f"results file {file}: the videos of {name} have figures of 0..1, VBench's are of "
                f"0..{factor:g}"
            )
        results[name] = VBenchResult(float(score), videos, method, variant)
    return results


def _measured_in(entries: Sequence[Any], where: str) -> tuple[str, str]:
    """The one method and variant in which a dimension's videos were measured, "" for VBench's own."""
    videos = [one for one in entries if isinstance(one, Mapping)]
    ways = list(dict.fromkeys((str(one.get(METHOD) or ""), str(one.get(VARIANT) or "")) for one in videos))
    if len(ways) > 1:
        one, other = (VBenchResult(0.0, (), *way).measured_by for way in ways[:2])
        raise InputError(
            f"{where}: some videos were measured by {one}, some by {other}; measure them in one way"
        )
    return ways[0] if ways else ("", "")


def _video(entry: Any, where: str, factor: float) -> VideoResult:
    path = entry.get("video_path") if isinstance(entry, dict) else None
    value = float("nan")
    if isinstance(path, str) and isinstance(entry.get("video_results"), bool | int | float):
        value = float(entry["video_results"])
    if not isinstance(path, str) or not math.isfinite(value):
        raise InputError(
            f"{where}: a video's entry is {str(entry)[:60]!r}, expected video_path and video_results"
        )
    known = ("video_path", "video_results", METHOD, VARIANT)
    return VideoResult(path, value / factor, {key: one for key, one in entry.items() if key not in known})


def write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines. Not ``.json``: VBench's tools take every ``.json`` beside the results for results."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file.write_text(text, encoding="utf-8")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
