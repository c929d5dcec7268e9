"""Params that name a file or folder of this machine, which no pod of a cluster can read.

Each such param is marked where it is declared (`components.runtime.params.Place`). Its default is part of the
images, so it is allowed everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.params import Params, step_sections
from components.runtime.errors import InputError
from components.runtime.params import Place, places_in
from pipelines.lint.pipeline_spec import PipelineSpec, inputs_of
from pipelines.lint.rules import Finding
from pipelines.steps import PIPELINE_INPUTS

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w(@[\w./-]+)?")


def local_places(sections: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Key, value and what is allowed instead, of each param that names a place on this machine.

    A param that was taken over from another section is named as it was given, by the other's key.

    Args:
        sections: sections of the params as plain values; keys that are absent are passed over.
    """
    for path, mark, default in places_in(Params):
        value = _at(sections, path)
        source = step_sections()[path[0]].taken_over.get(path[-1])
        if source is not None and _at(sections, source.split(".")) == value:
            continue
        if isinstance(value, str) and value != default and _is_local(value, mark):
            hub = " or a hub id owner/name" if mark.hub else ""
            words = "".join(f" or `{word}`" for word in sorted(mark.words))
            shipped = f" or the default `{default}`, which the image holds" if default else ""
            yield ".".join(path), value, f"an s3:// place{hub}{words}{shipped}"


def refuse_local_places(sections: Mapping[str, Any]) -> None:
    """Refuse params that send a cluster's pods to a place on this machine.

    Raises:
        InputError: naming each such param, its value and what is allowed.
    """
    found = [
        f"{key} = {value}: lies on this machine, where no pod can read it; allowed: {allowed}"
        for key, value, allowed in local_places(sections)
    ]
    if found:
        raise InputError("; ".join(found))


def local_places_compiled_in(compiled: PipelineSpec) -> Iterator[Finding]:
    """A fault of a pipeline for a cluster: a param compiled in that names a place on somebody's machine."""
    given = inputs_of(compiled.pipeline["root"], "parameters")
    for name, section in PIPELINE_INPUTS.items():
        try:
            values = json.loads(given.get(name, {}).get("defaultValue") or "null")
        except ValueError:
            continue  # a step refuses it in its own words
        for key, value, allowed in local_places({section: values}):
            where = f"root.inputDefinitions.parameters.{name}.{key}"
            yield Finding(where, f"{value} lies on one machine, where no pod can read it", allowed)


def refuse_unseen_places(sections: Mapping[str, Any], root: Path) -> None:
    """Refuse params that name a place outside `root`, the only folder of this machine that containers see.

    Raises:
        InputError: naming the first such param, its value and what is allowed.
    """
    for key, value, allowed in local_places(sections):
        path = Path(value.removeprefix("file://"))
        if not path.is_absolute() or not path.resolve().is_relative_to(root):
            raise InputError(
                f"{key} = {value}: containers see {root} only; allowed: an absolute path in it, or {allowed}"
            )


def _at(sections: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value at a key path; None where there is none."""
    value: Any = sections
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_local(value: str, mark: Place) -> bool:
    if not value or value in mark.words or value.startswith("s3://"):
        return False
    return not (mark.hub and _HUB_ID.fullmatch(value) and not Path(value).exists())
