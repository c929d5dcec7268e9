"""The lock files: which version of what goes into an image, with the hash of every file it may come from."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from components.runtime.errors import InputError
from components.runtime.io.files import write_atomically
from images.catalogue import LOCKS, ROOT, VARIANTS, Variant

PYTHON = "3.11"
PLATFORM = "x86_64-manylinux_2_28"
#: The build of torch that a variant takes; what constraints.txt says is the version without the suffix.
LOCAL_VERSION: dict[Variant, str] = {"cpu": "+cpu", "cuda": ""}
_HEADER = "# Made by `python -m images lock` from {inputs}; versions of constraints.txt.\n"


@dataclass(frozen=True)
class Lock:
    """One lock file.

    Attributes:
        name: the file is images/locks/<name>.txt.
        inputs: names of the .in files it resolves.
        variant: the build of torch among them, None where torch is not.
        below: the locks whose packages it leaves out, because its image is built on theirs.
        closed: whether what the inputs depend on belongs in it.
    """

    name: str
    inputs: tuple[str, ...]
    variant: Variant | None = None
    below: tuple[str, ...] = ()
    closed: bool = True


LOCK_FILES: tuple[Lock, ...] = (
    Lock("build", ("build",)),
    Lock("control", ("control",)),
    Lock("services", ("services",)),
    *(Lock(f"compute-{variant}", ("compute",), variant) for variant in VARIANTS),
    Lock("data", ("data",), closed=False),
    Lock("generation", ("compute", "generation"), "cpu", below=("compute-cpu",)),
    Lock("model", ("compute", "generation", "model"), "cpu", below=("compute-cpu", "generation")),
)


def entries(text: str) -> dict[str, str]:
    """The entries of a lock by normalised package name: each its line and those of its hashes."""
    found: dict[str, str] = {}
    for part in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?==", part)
        if match:
            found[normalised(match[1])] = part.rstrip() + "\n"
    return found


def normalised(package: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def version(entry: str) -> str:
    """The version that a lock's entry, or a line of constraints.txt, names."""
    return entry.split("==", 1)[1].split()[0]


def pinned(root: Path = ROOT) -> dict[str, str]:
    """The versions of constraints.txt by normalised name."""
    lines = (root / "constraints.txt").read_text().splitlines()
    return {normalised(line.split("==")[0]): version(line) for line in lines if "==" in line}


def write_locks(torch_wheels: str | None, upgrade: bool, root: Path = ROOT) -> list[Path]:
    """Resolve every lock anew and return those that changed.

    Args:
        torch_wheels: folder or index that has the CPU build of torch, None if the default index has it.
        upgrade: take the newest versions of what constraints.txt leaves open (CUDA's, the installer).
        root: the repository.

    Raises:
        InputError: if uv is not there, or what is asked for cannot be resolved.
    """
    changed: list[Path] = []
    made: dict[str, dict[str, str]] = {}
    for lock in LOCK_FILES:
        path = root / LOCKS / f"{lock.name}.txt"
        found = entries(_resolved(lock, path, torch_wheels, upgrade, root))
        there = {name for below in lock.below for name in made[below]}
        found = {name: entry for name, entry in found.items() if name not in there}
        made[lock.name] = found
        inputs = " + ".join(f"{name}.in" for name in lock.inputs)
        minus = "".join(f", less {below}.txt" for below in lock.below)
        text = _HEADER.format(inputs=f"{inputs}{minus}") + "".join(found[name] for name in sorted(found))
        if not path.is_file() or path.read_text() != text:
            write_atomically(path, text)
            changed.append(path)
    return changed


def _resolved(lock: Lock, path: Path, torch_wheels: str | None, upgrade: bool, root: Path) -> str:
    uv = shutil.which("uv")
    if uv is None:
        raise InputError("uv is not installed, and it is what resolves the locks: pip install uv")
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "lock.txt"
        if path.is_file():
            output.write_text(path.read_text())  # uv stays with the versions it finds there
        command = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-annotate", "--no-header"]
        command += [
            "--python-version",
            PYTHON,
            "--python-platform",
            PLATFORM,
            "-c",
            str(root / "constraints.txt"),
        ]
        command += [str(root / LOCKS / f"{name}.in") for name in lock.inputs]
        if lock.variant is not None:
            extra = Path(scratch) / "torch.in"
            extra.write_text(f"torch=={pinned(root)['torch']}{LOCAL_VERSION[lock.variant]}\n")
            command.append(str(extra))
        if lock.variant == "cpu" and torch_wheels is not None:
            option = "--find-links" if Path(torch_wheels).is_dir() else "--index"
            command += [option, torch_wheels, "--index-strategy", "unsafe-best-match"]
        if not lock.closed:
            command.append("--no-deps")
        if lock.name != "build":
            command += ["--no-emit-package", "setuptools", "--no-emit-package", "pip"]
        if upgrade:
            command.append("--upgrade")
        done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True)
        if done.returncode != 0:
            raise InputError(f"{path}: cannot be resolved: {' '.join(done.stderr.split())}")
        return output.read_text()
