"""A folder with every locked file of a variant, for builds where there is no network."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from components.runtime.errors import InputError
from images.catalogue import ROOT, Variant, locks, selected
from images.engines import BuildError
from images.lock import PYTHON


def fill(folder: Path, families: tuple[str, ...], variant: Variant, torch_index: str | None) -> int:
    """Download what the locks of `families` name, hashes checked; returns how many files lie there then.

    Args:
        folder: made where missing; files that are there already are kept.
        families: all of them, if none is named.
        variant: which build of torch.
        torch_index: index or folder that has its CPU build.

    Raises:
        InputError: on another Python or platform than the images'; pip chooses the files that fit its own.
        BuildError: if a file cannot be had.
    """
    here = (platform.system(), platform.machine(), ".".join(platform.python_version_tuple()[:2]))
    if here != ("Linux", "x86_64", PYTHON):
        raise InputError(f"it is filled on Linux x86_64 with Python {PYTHON}; this is {' '.join(here)}")
    folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if torch_index:
        name = "PIP_FIND_LINKS" if Path(torch_index).is_dir() else "PIP_EXTRA_INDEX_URL"
        environment[name] = torch_index
    for lock in sorted({lock for name in selected(families) for lock in locks(name, variant)}):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        print(f"{lock} ...", file=sys.stderr, flush=True)
        if subprocess.run(
            [*command, "--dest", str(folder), "-r", str(ROOT / lock)], env=environment
        ).returncode:
            raise BuildError(f"{lock}: not every file could be had; pip's reason is above")
    return sum(1 for file in folder.iterdir() if file.is_file())
