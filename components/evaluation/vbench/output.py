"""The three files that a measurement of a folder leaves, and the same as text."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.evaluation.vbench.files import write_lines, write_results
from components.evaluation.vbench.folder import counts
from components.evaluation.vbench.score import Scores, Settings
from components.evaluation.vbench.suites import Suite
from components.evaluation.vbench.totals import file_totals
from components.runtime.artifacts.outputs import check_file, starts_with
from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file
from components.runtime.tables import columns


def check_results(folder: Path, name: str) -> None:
    """Refuse to replace result files that this command did not write: VBench's own have the same names.

    Raises:
        InputError: there are such files.
    """
    if not name or "/" in name or name in (".", ".."):
        raise InputError(f"--name {name!r}: must be a name for files, without `/`")
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"--out {folder}: cannot be written: it is no folder")
    notes_file = folder / f"{name}_notes.jsonl"
    check_file(notes_file, "the notes of an earlier measurement", starts_with('{"kind": "about"'))
    for suffix in ("eval_results.json", "full_info.json"):
        file = folder / f"{name}_{suffix}"
        if os.path.lexists(file) and not notes_file.exists():
            raise InputError(
                f"{file}: there already, and without {notes_file.name}, so not written by this command; "
                "give another --name or --out"
            )


def write(folder: Path, name: str, suite: Suite, scores: Scores, settings: Settings) -> None:
    """Write ``{name}_eval_results.json``, ``{name}_full_info.json`` and ``{name}_notes.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    info = json.dumps(scores.entries, indent=4) + "\n"
    for suffix, writer in (  # the notes first: they tell that all three are ours
        ("notes.jsonl", lambda file: write_lines(file, notes(suite, scores, settings))),
        ("eval_results.json", lambda file: write_results(file, scores.results)),
        ("full_info.json", lambda file: file.write_text(info, encoding="utf-8")),
    ):
        with atomic_file(folder / f"{name}_{suffix}") as aside:
            writer(aside)


def notes(suite: Suite, scores: Scores, settings: Settings) -> list[dict[str, Any]]:
    """What a reader of the scores must know, a line each: the whole, each dimension, each problem."""
    official = file_totals(scores.results).official
    lines: list[dict[str, Any]] = [
        {
            "kind": "about",
            "suite": suite.name,
            "suite_digest": suite.digest,
            "prompts": len(suite.wanted()),
            "videos": sum(len(one["video_list"]) for one in scores.entries),
            "variant": "vbench" if settings.compat else "ours",
            "problems": counts(scores.problems),
            "quality": official.quality,
            "semantic": official.semantic,
            "total": official.total,
        }
    ]
    for name in suite.dimensions:
        line: dict[str, Any] = {"kind": "dimension", "dimension": name}
        if name in scores.unavailable:
            lines.append(line | {"unavailable": scores.unavailable[name]})
            continue
        dimension, result = scores.used[name], scores.results[name]
        line |= {"score": result.score, "videos": len(result.videos), "definition": dimension.definition}
        line |= {"weights": scores.origins[name]} if scores.origins[name] else {}
        line |= {"method": result.method} if result.method else {}
        if dimension.variant:
            line["variant"] = "as published" if settings.compat else dimension.variant
        lines.append(line | ({"left_out": scores.left_out[name]} if name in scores.left_out else {}))
    return lines + [asdict(problem) for problem in scores.problems]


def as_text(suite: Suite, scores: Scores) -> str:
    """Each dimension's score or why it has none, and what is wrong with the videos."""
    rows: list[tuple[str, ...]] = []
    for name in suite.dimensions:
        if name in scores.unavailable:
            rows.append((name, "n/a", scores.unavailable[name]))
        elif name in scores.results:
            result = scores.results[name]
            other = result.measured_by if result.method or result.variant else ""
            rows.append((name, f"{100 * result.score:.2f}", f"{len(result.videos)} videos  {other}"))
    for kind, number in counts(scores.problems).items():
        if number:
            named = [one.name for one in scores.problems if one.kind == kind]
            more = f" and {number - 3} more" if number > 3 else ""
            rows.append((kind, str(number), f"{', '.join(named[:3])}{more}"))
    return "\n".join(columns(rows, left=(0, 2)))
