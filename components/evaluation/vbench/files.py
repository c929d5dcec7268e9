"""VBench's file formats, both ways: names of videos, result files, and the suite they speak of."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from components.runtime.errors import InputError
from components.runtime.io.untrusted import read_json

#: Longest prompt kept in a file name, in bytes; with ``-{i}.mp4`` it stays below the 255 that file systems
#: allow.
NAME_BYTES = 240
#: What a video's own entry is multiplied by, where VBench writes it on another scale than the score.
PER_VIDEO_SCALE = {"imaging_quality": 100.0}
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
class Result:
    """One dimension of a result file: its score and the videos behind it."""

    score: float
    videos: tuple[VideoResult, ...]

    @property
    def method(self) -> str:
        """What replaced VBench's own models, "" where nothing did."""
        return next((str(one.more[METHOD]) for one in self.videos if one.more.get(METHOD)), "")

    @property
    def variant(self) -> str:
        """OURS where the definition differs from the published one by choice, else ""."""
        return next((str(one.more[VARIANT]) for one in self.videos if one.more.get(VARIANT)), "")


def as_json(results: Mapping[str, Result]) -> dict[str, list[Any]]:
    """``{dimension: [score, [{video_path, video_results, ...}, ...]]}``."""
    found: dict[str, list[Any]] = {}
    for name, result in results.items():
        factor = PER_VIDEO_SCALE.get(name, 1.0)
        videos = [
            {"video_path": one.path, "video_results": one.value * factor} | dict(one.more)
            for one in result.videos
        ]
        found[name] = [result.score, videos]
    return found


def write_results(file: Path, results: Mapping[str, Result]) -> None:
    """Write ``{name}_eval_results.json``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(as_json(results), indent=1) + "\n", encoding="utf-8")


def read_results(file: Path) -> dict[str, Result]:
    """Read ``{name}_eval_results.json``, VBench's or ours; yes-or-no values become 1 and 0.

    Raises:
        InputError: the file is missing, is not JSON, or does not have this shape.
    """
    results: dict[str, Result] = {}
    for name, entry in read_dimensions(file).items():
        where = f"results file {file}: {name}"
        if not isinstance(entry, list) or not entry or not _is_number(entry[0]):
            raise InputError(f"{where} is {str(entry)[:60]!r}, expected [score, [per-video results]]")
        videos = entry[1] if len(entry) > 1 and isinstance(entry[1], list) else []
        factor = PER_VIDEO_SCALE.get(name, 1.0)
        measured_in(videos, where)
        results[name] = Result(float(entry[0]), tuple(_video(one, where, factor) for one in videos))
    return results


def measured_in(videos: Sequence[Any], where: str) -> tuple[str, str]:
    """The method and the variant in which a dimension's videos were measured, "" for VBench's own.

    Raises:
        InputError: some were measured in one way, some in another.
    """
    entries = [one for one in videos if isinstance(one, Mapping)]
    ways = dict.fromkeys((str(one.get(METHOD) or ""), str(one.get(VARIANT) or "")) for one in entries)
    if len(ways) > 1:
        one, other = (in_words(*way) for way in list(ways)[:2])
        raise InputError(
            f"{where}: some videos were measured by {one}, some by {other}; measure them in one way"
        )
    return next(iter(ways), ("", ""))


def in_words(method: str, variant: str) -> str:
    """A way of measuring for people: "VBench", "our variant", or what replaced VBench's models."""
    ours = "our variant" if variant else ""
    return ", ".join(part for part in (method, ours) if part) or "VBench"


def read_dimensions(file: Path) -> dict[str, Any]:
    """The dimensions of a results file, each entry as it stands.

    Raises:
        InputError: the file is missing, is not JSON, or is not an object.
    """
    found = read_json(file, "results file")
    if not isinstance(found, dict):
        raise InputError(
            f"results file {file} holds {type(found).__name__}, expected an object of dimensions"
        )
    return found


def _video(entry: Any, where: str, factor: float) -> VideoResult:
    path = entry.get("video_path") if isinstance(entry, dict) else None
    value = float("nan")
    if isinstance(path, str) and isinstance(entry.get("video_results"), bool | int | float):
        value = float(entry["video_results"])
    if not isinstance(path, str) or not math.isfinite(value):
        raise InputError(
            f"{where}: a video's entry is {str(entry)[:60]!r}, expected video_path and video_results"
        )
    more = {key: one for key, one in entry.items() if key not in ("video_path", "video_results")}
    return VideoResult(path, value / factor, more)


def write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines. Not ``.json``: VBench's tools take every ``.json`` beside the results for results."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file.write_text(text, encoding="utf-8")


def write_full_info(file: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write ``{name}_full_info.json``: the suite's entries, each with the videos that were looked at."""
    file.write_text(json.dumps(list(entries), indent=4) + "\n", encoding="utf-8")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
