"""Params: one pydantic section per step, read from one YAML file and `--set` overrides.

The file holds one top-level key per step and `run:`, which every step shares. A step reads `run` and its
own section only, yet every section is checked by every step: a misspelt section would otherwise be silently
ignored, and a misspelt key of a late step be found hours later.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.runtime.errors import InputError, one_line
from components.runtime.io import storage
from components.runtime.io.untrusted import MAX_YAML_BYTES, check_yaml, content


class Section(BaseModel):
    """A group of params: frozen, closed to unknown keys; each field's description names its unit.

    Attributes:
        renamed_keys: deprecated keys of this section and their new names; dots lead into nested sections:
            `{"candidates": "num_generations", "shard.depth": "fsdp.wrap_depth"}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)
    renamed_keys: ClassVar[Mapping[str, str]] = {}


class RunParams(Section):
    """What every step of one run shares."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed from which every other seed is derived by name")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where to compute; auto takes a GPU where there is one"
    )


class StepParams(Section):
    """Base of every step's params; `run` comes from the file's top level, not from the step's section.

    Attributes:
        taken_over: keys that another section sets, by name the path to it: `{"gate": "registry.gate"}`.
    """

    taken_over: ClassVar[Mapping[str, str]] = {}
    run: RunParams = Field(default_factory=RunParams, description="shared by every step; set as `run.<key>`")


@dataclass(frozen=True)
class Place:
    """Marks a param that names a file or folder: `Annotated[str, Place()]`.

    A local path means something on one machine only. Whoever sends params to other machines finds every place
    by this mark (`places_in`).

    Attributes:
        hub: whether "owner/name" is read as an id of the Hugging Face hub where no such folder exists.
        words: values that are no place.
    """

    hub: bool = False
    words: frozenset[str] = frozenset()


P = TypeVar("P", bound=StepParams)
M = TypeVar("M", bound=BaseModel)


def known_sections() -> list[str]:
    """Allowed top-level keys: `run` and each package beside this one that declares params."""
    beside = Path(__file__).resolve().parents[1]
    return ["run", *sorted(p.parent.name for p in beside.glob("*/params.py") if p.parent.name != "runtime")]


def section_class(name: str) -> type[StepParams]:
    """The class of a step's section: what its package's params.py names after the step.

    Found by its name, as the packages themselves are, and only when a file speaks of the step: an image holds
    no other steps than its own.
    """
    module = importlib.import_module(f"{__name__.split('.', maxsplit=1)[0]}.{name}.params")
    cls: type[StepParams] = getattr(module, f"{name.capitalize()}Params")
    return cls


def load_step_params(cls: type[P], section: str, file: str | Path | None, overrides: Sequence[str] = ()) -> P:
    """A step's params from `file` (None: defaults) and `overrides` of the form "section.key=value".

    Values are YAML: numbers, true/false, lists. Later overrides win over earlier ones and over the file.

    Raises:
        InputError: naming the key path, what was given and what is allowed; of any section in the file.
    """
    for override in overrides:
        key = override.split("=", 1)[0].strip()
        first = key.split(".", 1)[0].split("[", 1)[0]
        if first not in ("run", section):
            why = "has no effect on" if first in known_sections() else "is unknown to"
            raise InputError(
                f"--set {override}: `{key}` {why} step {section}; allowed are run.<key> and {section}.<key>"
            )
    tree = load_tree(file, overrides, (*known_sections(), section))
    run = section_of(tree, "run")
    params = validated(cls, {**with_taken_over(cls, section, tree), "run": run}, section)
    for other in known_sections():
        if other in tree and other not in ("run", section):
            kind = section_class(other)
            validated(kind, {**with_taken_over(kind, other, tree), "run": run}, other)
    return params


def with_taken_over(cls: type[StepParams], section: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Section `section` of a plain tree, with the keys that another section sets.

    Raises:
        InputError: both sections set one, and not to the same value.
    """
    values = section_of(tree, section)
    for key, path in cls.taken_over.items():
        other, _, name = path.partition(".")
        other_value = section_of(tree, other).get(name)
        value = values.get(key)
        if value is not None and other_value is not None and value != other_value:
            raise InputError(
                f"{section}.{key} = {_shown(value)} and {path} = {_shown(other_value)}: must be one; "
                f"set {path} alone"
            )
        if value is None and other_value is not None:
            values = {**values, key: other_value}
    return values


def load_tree(
    file: str | Path | None, overrides: Sequence[str] = (), allowed: Iterable[str] | None = None
) -> dict[str, Any]:
    """The merged plain tree of `file` and `overrides`, its top-level keys checked, its sections not yet.

    Args:
        file: a YAML file or its s3:// URI, None for nothing but the overrides.
        overrides: "section.key=value" texts.
        allowed: top-level keys, `known_sections()` if not given.

    Raises:
        InputError: if the file is missing or not YAML, an override is malformed, or a top-level key is
            unknown.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    # OmegaConf raises an OSError for a document that is a number.
    unreadable = (
        YAMLError,
        OmegaConfBaseException,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        AssertionError,
    )
    known = sorted(set(known_sections() if allowed is None else allowed))
    config: Any = OmegaConf.create({})
    if file is not None:
        text = _text_of(file)
        check_yaml(text, f"params file {file}")
        try:
            config = OmegaConf.load(io.BytesIO(text)) if text.strip() else config
        except unreadable as error:
            raise InputError(f"params file {file}: not readable as YAML: {one_line(error)}") from error
        if not isinstance(config, DictConfig):
            raise InputError(f"params file {file}: must hold sections ({', '.join(known)}), not a list")
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key.strip() or "." not in key:
            raise InputError(f"--set {override}: must have the form section.key=value, e.g. run.seed=1")
        try:
            config.merge_with_dotlist([override])
        except (*unreadable, RecursionError) as error:
            raise InputError(f"--set {override}: cannot be applied: {one_line(error)}") from error
    # Left unresolved: a ${...} in a params file would otherwise read the environment into manifest and
    # tracking.
    tree = OmegaConf.to_container(config, resolve=False)
    assert isinstance(tree, dict)
    named = {str(name): section for name, section in tree.items()}
    for name in named:
        if name not in known:
            raise InputError(f"{file or '--set'}: unknown section `{name}`; {_allowed(name, known)}")
    return named


def _text_of(file: str | Path) -> bytes:
    if not storage.is_remote(file):
        return content(Path(file), f"params file {file}", MAX_YAML_BYTES)
    text = storage.read_bytes(file, at_most=MAX_YAML_BYTES + 1)
    if text is None:
        raise InputError(f"params file {file}: nothing there")
    return text


def section_of(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Section `name` of a plain tree as a dict ({} where absent or empty).

    Raises:
        InputError: if it is not a mapping, or holds `run`, which belongs to the top level.
    """
    section = tree.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise InputError(
            f"{name} = {_shown(section)}: must be a section of keys, e.g. {name}: {{key: value}}"
        )
    if "run" in section:
        raise InputError(f"{name}.run: not allowed here; `run` is a top-level section that every step shares")
    return section


def validated(cls: type[M], values: Mapping[str, Any], section: str = "") -> M:
    """`cls` built from plain `values`, or one line about everything that is wrong with them.

    A deprecated key (`Section.renamed_keys`) is read under its new name, with a warning line on stderr.

    Raises:
        InputError: naming each bad key path under `section`, what was given and what is allowed, or a key
            given under its old and its new name.
    """
    values = _renamed(cls, values, f"{section}." if section else "")
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(_describe(cls, e, section) for e in error.errors())) from None


def _renamed(cls: type[BaseModel], values: Any, prefix: str) -> Any:
    """Plain `values` of `cls` with each deprecated key under its new name, also in nested sections."""
    if isinstance(values, list | tuple):
        return [_renamed(cls, value, f"{prefix}{i}.") for i, value in enumerate(values)]
    if not isinstance(values, Mapping):
        return values
    if issubclass(cls, Section):
        for old, new in cls.renamed_keys.items():
            if _has(values, old):
                if _has(values, new):
                    raise InputError(
                        f"{prefix}{old} is the old name of {prefix}{new}: give {prefix}{new} alone"
                    )
                print(f"warning: {prefix}{old} is deprecated; use {prefix}{new}", file=sys.stderr)
                values, value = _without(values, old.split("."))
                values = _with(values, new.split("."), value)
    values = dict(values)
    for name, field in cls.model_fields.items():
        for inner in _models_in(field.annotation) if name in values else ():
            values[name] = _renamed(inner, values[name], f"{prefix}{name}.")
    return values


def _has(values: Any, path: str) -> bool:
    key, _, rest = path.partition(".")
    return isinstance(values, Mapping) and key in values and (not rest or _has(values[key], rest))


def _without(values: Mapping[str, Any], path: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """A copy of `values` less the key at `path`, and that key's value; a section left empty goes too."""
    copy = dict(values)
    if len(path) == 1:
        value = copy.pop(path[0])
        return copy, value
    copy[path[0]], value = _without(copy[path[0]], path[1:])
    if not copy[path[0]]:
        del copy[path[0]]
    return copy, value


def _with(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    inner = value if len(path) == 1 else _with(section_of(values, path[0]), path[1:], value)
    return {**values, path[0]: inner}


def places_in(cls: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], Place, Any]]:
    """Key path, mark and default of each param of `cls` that names a place, also in its sections."""
    for name, field in cls.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Place):
                yield (name,), mark, field.get_default(call_default_factory=True)
        for inner in _models_in(field.annotation):
            for path, mark, default in places_in(inner):
                yield (name, *path), mark, default


def digest(params: BaseModel) -> str:
    """SHA-256 (hex) of the params as canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(canonical_json(params.model_dump(mode="json")).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """`value` as JSON text that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _describe(cls: type[BaseModel], error: Any, section: str) -> str:
    loc: tuple[str | int, ...] = error["loc"]
    prefix = [section] if section and not (loc and loc[0] == "run") else []
    path = ".".join([*prefix, *(str(part) for part in loc)]) or "params"
    if error["type"] == "extra_forbidden":
        keys = {name for model in _models_at(cls, loc[:-1]) for name in model.model_fields}
        hidden = {"run"} if prefix and len(loc) == 1 else set()
        return (
            f"unknown key `{path}` (given {_shown(error['input'])}); {_allowed(str(loc[-1]), keys - hidden)}"
        )
    if error["type"] == "missing":
        return f"{path}: required, not given{_about(cls, loc)}"
    message = str(error["msg"])
    for start, instead in (
        ("Input should be ", "must be "),
        ("Value error, ", ""),
        ("Assertion failed, ", ""),
    ):
        if message.startswith(start):
            message = instead + message.removeprefix(start)
    value = f" = {_shown(error['input'])}" if not isinstance(error["input"], dict) else ""
    return f"{path}{value}: {message}{_about(cls, loc)}"


def _about(cls: type[BaseModel], loc: Sequence[str | int]) -> str:
    """The description of the field at `loc`, in brackets, for the reader of an error."""
    text = ""
    for depth, part in enumerate(loc):
        for model in _models_at(cls, loc[:depth]):
            if (field := model.model_fields.get(str(part))) is not None:
                text = field.description or ""
    return f" ({text})" if text else ""


def _models_at(cls: type[BaseModel], loc: Sequence[str | int]) -> set[type[BaseModel]]:
    """The sections at `loc`; list indices and union tags in `loc` are stepped over."""
    models: set[type[BaseModel]] = {cls}
    for part in loc:
        fields = [model.model_fields[str(part)] for model in models if str(part) in model.model_fields]
        inner = {model for field in fields for model in _models_in(field.annotation)}
        models = inner or {model for model in models if model.__name__ == part} or models
    return models


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for argument in get_args(annotation) for model in _models_in(argument)}


def _allowed(given: str, keys: Iterable[str]) -> str:
    names = sorted(keys)
    close = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean `{close[0]}`? " if close else ""
    return f"{hint}allowed: {', '.join(names) or 'nothing'}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
