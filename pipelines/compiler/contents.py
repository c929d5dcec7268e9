"""What lies in a store under the names that params give, as part of a step's command line.

Kubeflow's cache compares a task's image, command line, params and input artifacts. Objects that changed under
the same s3:// name change none of these, so it would hand out the old result. A digest of them on the command
line, which the container does not read, tells such tasks apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from components.places import PLACES, digests
from components.runtime.errors import InputError
from components.runtime.io import storage
from components.runtime.params import canonical_json


def with_contents(documents: Sequence[dict[str, Any]], sections: Mapping[str, Any]) -> None:
    """Put the digest of what each step's params name in a store into its task's command line, in place.

    Args:
        documents: a compiled pipeline.
        sections: the params that it was compiled from, by section.

    Raises:
        InputError: a store cannot be reached, or has nothing under a name.
    """
    executors = documents[0]["deploymentSpec"]["executors"]
    found = digests({name: _in_stores(name, sections[name]) for name in PLACES})
    for name, keys in found.items():
        for key, value in keys.items():
            place = _value(sections[name], key.removeprefix(f"{name}."))
            if place is not None and value is None:
                raise InputError(f"{key} = {place}: nothing there")
    for step in PLACES:
        seen = {key: value for key, value in found[step].items() if value is not None}
        if seen:
            digest = hashlib.sha256(canonical_json(seen).encode()).hexdigest()
            executors[f"exec-{step}"]["container"]["args"] += ["--contents", digest]


def _in_stores(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """A section's places, those on this machine and on the hub left out: no pod reads the former."""
    tree: dict[str, Any] = {}
    for key in PLACES[name]:
        *groups, last = key.split(".")
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = _value(section, key)
    return tree


def _value(section: Mapping[str, Any], key: str) -> str | None:
    value: Any = section
    for part in key.split("."):
        value = value[part]
    return value if isinstance(value, str) and value and storage.is_remote(value) else None
