"""Build the images and write the images file that the pipeline is compiled with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from components.runtime.errors import InputError, one_line
from components.runtime.io.files import write_atomically
from images.catalogue import DESCRIPTIONS, ROOT, Variant, selected, sources
from images.engines import BuildEngine
from pipelines.steps import FAMILIES


@dataclass(frozen=True)
class Build:
    """How to build; the fields are the options of `python -m images build`."""

    engine: str
    variant: Variant
    tag: str | None
    push: str | None
    base_image: str
    wheelhouse: Path | None
    index: str | None
    torch_index: str | None
    extra: tuple[str, ...]


@dataclass(frozen=True)
class Revision:
    """Which state of the repository something was made from.

    Attributes:
        commit: 40 hex digits, "-dirty" after them if there are changes beyond it; "unknown" outside of git.
        epoch: the commit's time in seconds since 1970.
    """

    commit: str
    epoch: int

    @property
    def created(self) -> str:
        """The time as ISO 8601, for the label."""
        return datetime.fromtimestamp(self.epoch, UTC).isoformat().replace("+00:00", "Z")

    def tag(self, variant: Variant) -> str:
        """The tag of an image that is made from it."""
        commit, _, dirty = self.commit.partition("-")
        return f"{commit[:12]}-{variant}{'-dirty' if dirty else ''}"


def revision(paths: tuple[str, ...] = (), root: Path = ROOT) -> Revision:
    """The last commit that touched any of `paths`, all of the repository if there are none.

    An image carries the revision of its own sources, not of the whole repository: a commit that changes
    nothing in it gives the same image, with the same digest, and Kubeflow finds its cached results.
    SOURCE_DATE_EPOCH, where set, is the time.
    """
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    where = ["--", *paths, ":(exclude,glob)components/**/README.md", ":(exclude,glob)pipelines/**/README.md"]
    found = _git(root, "log", "-1", "--format=%H %ct", *where)
    if not found:
        return Revision("unknown", int(told) if told.isdigit() else 0)
    commit, seconds = found.split()
    dirty = "-dirty" if _git(root, "status", "--porcelain", *where) else ""
    return Revision(f"{commit}{dirty}", int(told) if told.isdigit() else int(seconds))


def build_images(settings: Build, families: tuple[str, ...], output: Path) -> dict[str, str]:
    """Build `families` (all, if none is named) and write the images file; returns what was built, by name.

    The images file names the families of steps; of `services`, which no step runs in, the reference is only
    printed and returned.

    Raises:
        InputError: for an unknown family or engine, or a wheelhouse that is not there.
        BuildError: if the engine fails.
    """
    known = _known(output)
    engine = BuildEngine.found(settings.engine)
    if settings.wheelhouse is not None and not settings.wheelhouse.is_dir():
        raise InputError(
            f"--wheelhouse {settings.wheelhouse}: no such folder; see python -m images wheelhouse"
        )
    prefix = f"{settings.push.rstrip('/')}/" if settings.push else engine.prefix
    references: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in selected(families):
        state = revision(sources(name, settings.variant))
        references[name] = f"{prefix}onlinevpo-{name}:{settings.tag or state.tag(settings.variant)}"
        print(f"== {name} -> {references[name]}", file=sys.stderr, flush=True)
        began = time.monotonic()
        engine.build(_command(engine, settings, name, references[name], state))
        seconds[name] = time.monotonic() - began
    publish = engine.push if settings.push else engine.pinned
    built = {name: publish(reference) for name, reference in references.items()}
    _write(output, known | built)
    for name, reference in references.items():
        print(f"{name:<11} {engine.size(reference):>8} {seconds[name]:6.0f} s  {built[name]}")
    return built


def _command(engine: BuildEngine, settings: Build, name: str, reference: str, state: Revision) -> list[str]:
    arguments = {
        "BASE_IMAGE": settings.base_image,
        "REVISION": state.commit,
        "VARIANT": settings.variant,
        "PIP_INDEX_URL": settings.index,
        "PIP_CERT": os.environ.get("PIP_CERT"),
        "TORCH_INDEX": settings.torch_index,
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = {
        "title": f"onlinevpo-{name}",
        "description": f"OnlineVPO: {DESCRIPTIONS[name]}",
        "licenses": project["license"],
        "version": project["version"],
        "revision": state.commit,
        "created": state.created,
    }
    given = {name: value for name, value in arguments.items() if value}
    return engine.build_command(name, reference, given, labels, settings.wheelhouse, settings.extra)


def _known(output: Path) -> dict[str, str]:
    """What the images file says of families that are not built now."""
    if not output.is_file():
        return {}
    try:
        found = yaml.safe_load(output.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{output}: not an images file: {one_line(error)}") from None
    if not isinstance(found, dict) or not set(found) <= set(FAMILIES):
        raise InputError(f"{output}: not an images file: a mapping of {', '.join(FAMILIES)} is needed")
    return {str(name): str(reference) for name, reference in found.items()}


def _write(output: Path, references: dict[str, str]) -> None:
    write_atomically(
        output, "".join(f"{name}: {references[name]}\n" for name in FAMILIES if name in references)
    )


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
