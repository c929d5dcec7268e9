"""What sampling notes of each video: file, prompt, seed, rate, model. It lies beside the videos' folder.

Not in it: VBench takes the suffix of whatever file it meets first in that folder for that of all videos, and
then finds none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.evaluation.vbench.files import write_lines
from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file
from components.runtime.io.untrusted import read_json_lines

#: Its name inside the folder, where earlier releases wrote it. It is still read there.
INSIDE = "samples.jsonl"


def record_file(folder: Path) -> Path:
    """``NAME.samples.jsonl`` beside the folder ``NAME``."""
    whole = folder.resolve()
    return whole.with_name(f"{whole.name}.{INSIDE}")


def read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """What was noted of each file, by file name; {} where there is no note.

    Raises:
        InputError: the note is there and cannot be read.
    """
    file = next((file for file in (record_file(folder), folder / INSIDE) if file.is_file()), None)
    if file is None:
        return {}
    try:
        lines = read_json_lines(file)
        return {str(line["file"]): line for line in lines if "file" in line}
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read as JSON lines: {error}") from error


def recorded_prompts(folder: Path) -> dict[str, str]:
    """The text that each noted file was drawn for, by file name.

    Raises:
        InputError: the note is there and cannot be read.
    """
    record = read_record(folder)
    return {name: line["prompt"] for name, line in record.items() if isinstance(line.get("prompt"), str)}


def write_record(folder: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write the note, whole or not at all; one inside the folder, which an earlier release wrote, goes.

    Raises:
        InputError: it cannot be written beside the folder.
    """
    file = record_file(folder)
    if os.path.lexists(file) and (not file.is_file() or not _is_ours(file)):
        raise InputError(f"{file}: holds something else than the note of drawn videos; move it away")
    try:
        with atomic_file(file) as aside:
            write_lines(aside, lines)
    except OSError as error:
        raise InputError(
            f"{file}: {error.strerror}; the note of the videos' seeds lies beside their folder: name one "
            "inside a folder that can be written"
        ) from error
    earlier = folder / INSIDE
    if earlier.is_file() and _is_ours(earlier):
        earlier.unlink()
        print(f"{earlier}: moved to {file}, VBench finds no video beside it", file=sys.stderr)


def _is_ours(file: Path) -> bool:
    try:
        return all({"file", "seed", "model"} <= set(line) for line in read_json_lines(file))
    except (InputError, TypeError):
        return False
