"""Lists of prompts as people keep them: lines, JSON, JSON lines, CSV or YAML. One reader for every step."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from components.runtime.errors import InputError
from components.runtime.io import storage
from components.runtime.io.untrusted import check_yaml, parse_json

MAX_FILE_BYTES = 4 * 1024 * 1024
#: The longest of the rewritten prompts that VBench publishes has 1,422.
MAX_PROMPT_CHARACTERS = 5000
MAX_PROMPTS = 20_000
#: Names of the column or key that holds the prompt; the first one that is there counts.
FIELDS = ("prompt", "prompt_en", "caption", "text")
FORMATS = ".txt, .json, .jsonl, .csv or .yaml"

_KINDS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".yaml": "yaml",
    ".yml": "yaml",
}
_JSON_START = re.compile(r"[\[{]\s*$|\[\s*[\"{]|\{\s*\"")

#: Where a value stands in its file ("line 3", "item 3"), and the value.
Row = tuple[str, Any]


def read_prompt_list(file: str | Path, distinct: bool = True) -> list[str]:
    """The prompts of a file on disk or at s3://, in NFC and in the file's order.

    The format follows from the suffix; any other file is a prompt a line, unless its content shows that it is
    JSON, JSON lines, CSV or YAML. In a file of lines, blank ones and those that start with ``#`` are skipped.
    JSON and YAML: a list of texts or of objects, or an object with such a list. CSV: with a header. Objects
    and headers name the prompt by one of `FIELDS`.

    Args:
        file: the list.
        distinct: leave out repetitions.

    Raises:
        InputError: missing, out of reach, too large, not UTF-8, not readable in its format, a value that is
            no text, a prompt that is too long or holds control characters, too many of them.
    """
    data = storage.read_bytes(file, at_most=MAX_FILE_BYTES + 1)
    if data is None:
        raise InputError(f"{file}: no such file of prompts")
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{file}: too large, a list of prompts has at most {MAX_FILE_BYTES:,} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text (byte {error.start})") from error
    kind = _KINDS.get(PurePosixPath(str(file)).suffix.lower()) or _kind_of(text)
    rows = {"json": _json_rows, "csv": _csv_rows, "yaml": _yaml_rows, "lines": _line_rows}[kind](
        text, str(file)
    )
    prompts = [_cleaned(value, f"{file}, {place}") for place, value in rows]
    if distinct:
        prompts = list(dict.fromkeys(prompts))
    if len(prompts) > MAX_PROMPTS:
        raise InputError(f"{file}: {len(prompts):,} prompts, at most {MAX_PROMPTS:,} are allowed")
    return prompts


def _kind_of(text: str) -> str:
    """The format of a file whose suffix does not say it."""
    lines = [value for _, value in _line_rows(text, "")]
    if not lines:
        return "lines"
    if _JSON_START.match(lines[0]):
        return "json"
    header = _header(lines[0])
    if header is not None and len(header[1]) > 1:
        return "csv"
    listed = lines[1:] if re.fullmatch(r"prompts?:", lines[0]) else lines
    return "yaml" if len(lines) > 1 and all(line.startswith("- ") for line in listed) else "lines"


def _line_rows(text: str, file: str) -> Iterator[Row]:
    # Not splitlines: a prompt may hold characters that it takes for line ends, and they are refused.
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip(" \t\r")
        if line and not line.startswith("#"):
            yield f"line {number}", line


def _json_rows(text: str, file: str) -> Iterator[Row]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > 1 and _is_json(lines[0][1]):
        values = [(f"line {number}", parse_json(line, f"{file}, line {number}")) for number, line in lines]
        return _texts(values, file)
    return _texts(_items(parse_json(text, file), file), file)


def _is_json(text: str) -> bool:
    try:
        parse_json(text, "")
    except InputError:
        return False
    return True


def _yaml_rows(text: str, file: str) -> Iterator[Row]:
    import yaml

    check_yaml(text, file)
    return _texts(_items(yaml.safe_load(text), file), file)


def _items(value: Any, file: str) -> list[Row]:
    """The entries of the list that a JSON or YAML file holds."""
    if isinstance(value, dict):
        keys = {str(key).lower(): key for key in value}
        field = next((keys[name] for name in ("prompts", *FIELDS) if name in keys), None)
        if field is None:
            raise InputError(f"{file}: expected a list of prompts, or an object with `prompts`")
        value = value[field]
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise InputError(f"{file}: expected a list of prompts, found {type(value).__name__}")
    return [(f"item {number}", one) for number, one in enumerate(value, start=1)]


def _texts(rows: list[Row], file: str) -> Iterator[Row]:
    """Each row's text: itself, or what an object holds under the prompt's name, the same one in all rows."""
    field = ""
    for place, value in rows:
        if not isinstance(value, dict):
            yield place, value
            continue
        by_name = {str(key).lower(): one for key, one in value.items()}
        field = field or next((name for name in FIELDS if name in by_name), "")
        if field not in by_name:
            raise InputError(
                f"{file}, {place}: no `{field or FIELDS[0]}` in {_short(value)}; a prompt that holds a colon "
                "or a brace must be quoted"
            )
        yield place, by_name[field]


def _csv_rows(text: str, file: str) -> Iterator[Row]:
    first = next((line for line in text.split("\n") if line.strip()), "")
    header = _header(first)
    if header is None:
        raise InputError(
            f"{file}: no column is named {', '.join(FIELDS)}: the first row, which must name the columns, is "
            f"{_short(first.strip())}"
        )
    delimiter, names = header
    column = next(names.index(name) for name in FIELDS if name in names)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows = iter(reader)
    try:
        while not any(cell.strip() for cell in next(rows)):  # up to the header
            pass
        for cells in rows:
            place = f"line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(names) or len(cells) <= column:
                raise InputError(
                    f"{file}, {place}: {len(cells)} cells where the header names {len(names)}; a prompt that "
                    f"holds {delimiter!r} must be quoted"
                )
            yield place, cells[column]
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: not readable as CSV: {error}") from error


def _header(line: str) -> tuple[str, list[str]] | None:
    """The delimiter and the columns that a header names, in small letters; None if none holds the prompt."""
    readings = []
    for delimiter in ",;\t":
        try:
            cells = next(csv.reader([line.strip("\r")], delimiter=delimiter, skipinitialspace=True))
        except (csv.Error, StopIteration):
            continue
        names = [cell.strip().lower() for cell in cells]
        if any(name in FIELDS for name in names):
            readings.append((delimiter, names))
    return max(readings, key=lambda reading: len(reading[1]), default=None)


def _cleaned(value: Any, where: str) -> str:
    """The prompt itself, checked; `where` names its place in the file."""
    if not isinstance(value, str):
        raise InputError(f"{where}: {_short(value)} is {type(value).__name__}, a prompt must be text")
    prompt = unicodedata.normalize("NFC", value.strip(" \t\r\n"))
    if not prompt:
        raise InputError(f"{where}: an empty prompt")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise InputError(f"{where}: {len(prompt)} characters, a prompt has at most {MAX_PROMPT_CHARACTERS}")
    # Cc: control characters; Cf would forbid the joiners of emoji and of many scripts, so only its
    # dangerous ones.
    if any(
        unicodedata.category(sign) in ("Cc", "Zl", "Zp") or sign in "\u202a\u202b\u202d\u202e"
        for sign in prompt
    ):
        raise InputError(f"{where}: control characters and line breaks are not allowed in a prompt")
    return prompt


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
