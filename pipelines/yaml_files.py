"""YAML files in and out: wrong ones in one clear line, equal values as equal bytes, written whole or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from components.runtime.errors import InputError, one_line
from components.runtime.io.files import write_atomically
from components.runtime.io.untrusted import MAX_YAML_BYTES, check_yaml, content


def read_documents(path: Path, what: str) -> list[Any]:
    """The YAML documents of a file, empty ones left out.

    Args:
        path: the file.
        what: what it should be, for the error.

    Raises:
        InputError: if it cannot be read or is not YAML.
    """
    try:
        text = content(path, f"{what} {path}", MAX_YAML_BYTES).decode()
    except UnicodeDecodeError:
        raise InputError(f"{what} {path}: not readable as YAML: not UTF-8 text") from None
    check_yaml(text, f"{what} {path}")
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{what} {path}: not readable as YAML: {one_line(error)}") from None


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The one document of a YAML file, which must be a mapping of text keys ({} where the file is empty).

    Raises:
        InputError: if it cannot be read, is not YAML, or is anything else.
    """
    documents = read_documents(path, what)
    if len(documents) > 1:
        raise InputError(f"{what} {path}: holds {len(documents)} YAML documents, must hold one")
    mapping = documents[0] if documents else {}
    if not isinstance(mapping, dict) or not all(isinstance(key, str) for key in mapping):
        raise InputError(f"{what} {path}: must hold keys and values, not {type(mapping).__name__}")
    return mapping


def dump(documents: Sequence[Any]) -> str:
    """The documents as YAML text: sorted keys, no comments, one `---` between two."""
    return yaml.safe_dump_all(
        documents, sort_keys=True, default_flow_style=False, allow_unicode=True, width=110
    )


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the whole new one.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
