"""Which images there are, what each is built on, and which files it is built from."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.runtime.errors import InputError
from pipelines.steps import FAMILIES

Variant = Literal["cpu", "cuda"]
VARIANTS: tuple[Variant, ...] = ("cpu", "cuda")
ROOT = Path(__file__).resolve().parents[1]
LOCKS = Path("images/locks")


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        name: its folder under images/.
        parent: the image of ours that it is built on; None for the one built on BASE_IMAGE.
    """

    name: str
    parent: str | None

    @property
    def containerfile(self) -> Path:
        """Relative to the root of the repository, which is the build context."""
        return Path("images") / self.name / "Containerfile"

    @property
    def repository(self) -> str:
        """Its name in a registry, without the registry."""
        return f"onlinevpo-{self.name}"


#: In the order they can be built in.
IMAGES: tuple[Image, ...] = (
    Image("base", None),
    Image("control", "base"),
    Image("services", "base"),
    Image("compute", "base"),
    Image("data", "compute"),
    Image("generation", "compute"),
    Image("model", "generation"),
    Image("evaluation", "generation"),
)


#: What can be asked for: the families of steps, and what manifests/ runs beside them.
NAMES: tuple[str, ...] = (*FAMILIES, "services")


def chain(names: tuple[str, ...]) -> tuple[Image, ...]:
    """The images that must be built to have these, parents first; every family of steps if none is named.

    Raises:
        InputError: for a name that is none of `NAMES`.
    """
    by_name = {image.name: image for image in IMAGES}
    wanted: set[str] = set()
    for asked in names or FAMILIES:
        if asked not in NAMES:
            raise InputError(f"--family {asked}: must be one of {', '.join(NAMES)}")
        name: str | None = asked
        while name is not None:
            wanted.add(name)
            name = by_name[name].parent
    return tuple(image for image in IMAGES if image.name in wanted)


def instructions(containerfile: str) -> list[list[str]]:
    """A Containerfile's instructions as words, the instruction's name first and in capitals."""
    joined = "\n".join(line for line in containerfile.splitlines() if not line.lstrip().startswith("#"))
    lines = joined.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            found.append([name.upper(), *shlex.split(rest)])
    return found


def sources(image: Image, variant: Variant, root: Path = ROOT) -> tuple[str, ...]:
    """Paths, relative to the root, of what goes into an image: its own and its parents'."""
    found = {str(image.containerfile)}
    for name, *words in instructions((root / image.containerfile).read_text()):
        if name == "COPY" and not any(word.startswith("--from=") for word in words):
            paths = [word for word in words if not word.startswith("--")][:-1]
            found.update(path.replace("${VARIANT}", variant).rstrip("/") for path in paths)
    if image.parent is not None:
        found.update(sources(next(i for i in IMAGES if i.name == image.parent), variant, root))
    return tuple(sorted(found))
