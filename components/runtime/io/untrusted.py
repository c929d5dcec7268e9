"""JSON and YAML of others: what cannot be read, or would grow without bound in reading, is one clear error.

Both readers recurse, so a file of a few kilobytes of brackets ends them with a RecursionError; YAML's
aliases let as few bytes stand for billions of values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.runtime.errors import InputError, one_line

#: Of a YAML file. The reader takes about 2 s for each megabyte.
MAX_YAML_BYTES = 4 * 2**20
#: Values in a YAML file, those that an alias stands for counted each time.
MAX_YAML_VALUES = 200_000
MAX_YAML_DEPTH = 100
#: Of a JSON file: far more than anything here writes, less than what would fill a machine.
MAX_JSON_BYTES = 2**28
PIECE_BYTES = 2**20


def parse_json(text: bytes | str, what: str) -> Any:
    """The value of a JSON text; `what` names it for the error.

    Raises:
        InputError: it is not JSON, not UTF-8, nested too deeply, or holds a number too long to be one.
    """
    try:
        value = json.loads(text)
        if (b"\\u" if isinstance(text, bytes) else "\\u") in text:  # type: ignore[operator]
            # An escape can be half of a character, which no file and no name can hold.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: not readable as JSON: {one_line(error)}") from error
    return value


def parse_json_lines(text: bytes, what: str) -> list[Any]:
    """The values of a text with one JSON value a line, empty lines left out.

    Raises:
        InputError: naming the line.
    """
    # Not splitlines: a text may hold characters that it takes for line ends.
    lines = enumerate(text.split(b"\n"), start=1)
    return [parse_json(line, f"{what}, line {number}") for number, line in lines if line.strip()]


def read_json(file: Path, what: str = "") -> Any:
    """The value of a JSON file; `what` says what it should be.

    Raises:
        InputError: it is missing or cannot be read as JSON.
    """
    where = f"{what} {file}".strip()
    return parse_json(content(file, where), where)


def read_json_lines(file: Path) -> list[Any]:
    """The values of a file with one JSON value a line.

    Raises:
        InputError: it is missing, or naming the line that is no JSON.
    """
    return parse_json_lines(content(file, str(file)), str(file))


def check_yaml(text: bytes | str, what: str) -> None:
    """Refuse a YAML text before values are made of it, unless it is YAML of a sane size.

    Raises:
        InputError: not YAML, too large, nested too deeply, or too many values behind its aliases.
    """
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise InputError(f"{what}: more than {MAX_YAML_BYTES:,} bytes, which is what is read at most")
    sizes: dict[int, int] = {}
    try:
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        total = sum(_size(document, sizes, 0, what) for document in documents if document is not None)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{what}: not readable as YAML: {one_line(error)}") from error
    if total > MAX_YAML_VALUES:
        raise InputError(
            f"{what}: its aliases stand for {total:,} values, at most {MAX_YAML_VALUES:,} are read"
        )


def _size(node: Any, sizes: dict[int, int], depth: int, what: str) -> int:
    """How many values a node stands for; sizes of those seen before by identity, -1 for those still open."""
    known = sizes.get(id(node))
    if known == -1:
        raise InputError(f"{what}: an alias inside what it stands for")
    if known is not None:
        return known
    if depth > MAX_YAML_DEPTH:
        raise InputError(f"{what}: nested more than {MAX_YAML_DEPTH} levels deep")
    sizes[id(node)] = -1
    if isinstance(node.value, str):
        node.value.encode()  # an escape can be half of a character, which no file and no name can hold
    parts = node.value if isinstance(node.value, list) else []
    inside = [part for entry in parts for part in (entry if isinstance(entry, tuple) else (entry,))]
    sizes[id(node)] = 1 + sum(_size(part, sizes, depth + 1, what) for part in inside)
    return sizes[id(node)]


def content(file: Path, what: str, at_most: int = MAX_JSON_BYTES) -> bytes:
    """The bytes of a file, which may be a pipe or a device that never ends; `what` names it for the error.

    Raises:
        InputError: it is missing, cannot be read, or holds more than `at_most` bytes.
    """
    try:
        with file.open("rb") as stream:
            data = bytearray()
            # in pieces: one read of n bytes takes memory for n before it knows how many there are
            while len(data) <= at_most and (piece := stream.read(PIECE_BYTES)):
                data += piece
    except OSError as error:
        raise InputError(f"{what}: {error.strerror or error}") from error
    if len(data) > at_most:
        raise InputError(f"{what}: more than {at_most:,} bytes, which is what is read at most")
    return bytes(data)
