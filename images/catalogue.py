"""Which images there are, and which files each is built from, as images/Containerfile says it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Literal

from components.runtime.errors import InputError
from pipelines.steps import FAMILIES

Variant = Literal["cpu", "cuda"]
VARIANTS: tuple[Variant, ...] = ("cpu", "cuda")
ROOT = Path(__file__).resolve().parents[1]
LOCKS = Path("images/locks")
#: Relative to the root of the repository, which is the build context. Each image is a target of it.
CONTAINERFILE = Path("images/Containerfile")
#: What each image is, for its label: the families of steps, and what manifests/ runs beside them.
DESCRIPTIONS: dict[str, str] = {
    "data": "the corpus step",
    "model": "the generator, reward and alignment steps",
    "evaluation": "the evaluation step",
    "control": "the registry step, the exit handler, the TrainJob launcher",
    "services": "MLflow's server and an S3 server, for manifests/",
}
NAMES: tuple[str, ...] = tuple(DESCRIPTIONS)


def selected(names: tuple[str, ...]) -> tuple[str, ...]:
    """The images that were asked for, in the order of `NAMES`; every family of steps if none is named.

    Raises:
        InputError: for a name that is none of `NAMES`.
    """
    for name in names:
        if name not in NAMES:
            raise InputError(f"--family {name}: must be one of {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in (names or FAMILIES))


def stages(containerfile: str) -> dict[str, list[list[str]]]:
    """Instructions of a Containerfile by stage, each as words, the name first and in capitals."""
    text = "\n".join(line for line in containerfile.splitlines() if not line.lstrip().startswith("#"))
    found: dict[str, list[list[str]]] = {}
    name = ""
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction, _, rest = line.strip().partition(" ")
        words = [instruction.upper(), *shlex.split(rest)]
        if words[0] == "FROM":
            name = words[-1]
        found.setdefault(name, []).append(words)
    return found


def needed(target: str, found: dict[str, list[list[str]]]) -> list[str]:
    """The stages that a target is made of (FROM, COPY --from, RUN --mount), parents first."""
    order: list[str] = []
    for instruction, *words in found[target]:
        names = words[:1] if instruction == "FROM" else re.findall(r"from=([\w-]+)", " ".join(words))
        for name in names:
            if name in found:
                order += [stage for stage in needed(name, found) if stage not in order]
    return [*order, target]


def sources(target: str, variant: Variant, root: Path = ROOT) -> tuple[str, ...]:
    """Paths, relative to the root, of what goes into a target, its parents' included."""
    found = stages((root / CONTAINERFILE).read_text())
    paths = {str(CONTAINERFILE)}
    for stage in needed(target, found):
        for instruction, *words in found[stage]:
            if instruction == "COPY" and not words[0].startswith("--from="):
                paths.update(path.replace("${VARIANT}", variant).rstrip("/") for path in words[:-1])
    return tuple(sorted(paths))


def locks(target: str, variant: Variant) -> tuple[str, ...]:
    """The lock files that are installed in a target, or to build it."""
    return tuple(path for path in sources(target, variant) if Path(path).parent == LOCKS)
