"""Tells text that looks like a credential from text that does not, without ever repeating it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_SHAPES = {
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{22}",
    "a GitLab token": r"\bglpat-[\w-]{20}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30}",
    "a Slack token": r"\bxox[abeoprs]-[\w-]{10}",
    "a JSON web token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+",
    "a bearer token": r"(?i)\bbearer\s+[\w.~+/=-]{16}",
    "a password in a URL": r"\b[a-z][a-z0-9+.-]*://[^/\s:@'\"{}]+:[^/\s:@'\"{}]+@",
}
_WORDS = (
    r"password|passwd|passphrase|secret|token|credentials?|api_?key|access_?key(?:_?id)?|secret_?key"
    r"|private_?key|account_?key"
)
# A name that ends so says where a credential is kept, not what it is.
_NAMED = re.compile(rf"(?:^|[_.-])(?:{_WORDS})$")
# These keys of a TrainJob's settings map variables to keys of Secrets.
_REFERENCES = frozenset({"secrets", "config_maps"})


def suspicions(text: str) -> Iterator[str]:
    """What in `text` looks like a credential, in words; JSON in it is looked into by its keys."""
    for what, shape in _SHAPES.items():
        if re.search(shape, text):
            yield what
    if text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            yield from (f"a value for `{name}`" for name in _in_json(json.loads(text)))


def is_credential(name: str, value: str) -> bool:
    """Whether a variable, option or key of this name holds a credential itself, not a reference to one."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")
    return bool(value.strip()) and "{{$" not in value and _NAMED.search(snake) is not None


def in_arguments(arguments: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Index and name of each option (--name value, --name=value) that hands over a credential."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if equals and re.fullmatch(r"-{0,2}[\w.-]+", name):
            found = is_credential(name.lstrip("-"), value)
        else:
            following = arguments[index + 1] if index + 1 < len(arguments) else ""
            found = (
                argument.startswith("--")
                and not following.startswith("-")
                and is_credential(argument.lstrip("-"), following)
            )
        if found:
            yield index, name.lstrip("-")


def _in_json(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, str) and is_credential(str(name), inner):
                yield str(name)
            elif name not in _REFERENCES:
                yield from _in_json(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _in_json(inner)
