"""Which code and which libraries made a result."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "onlinevpo"
_ROOT = Path(__file__).resolve().parents[3]
_LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-image",
    "av",
    "mlflow",
)


@lru_cache(maxsize=1)
def code_version() -> tuple[str, bool]:
    """The code's version and whether it was changed since.

    In a git checkout the commit, changed meaning uncommitted work under components/ or pipelines/.
    Elsewhere (a container image) ONLINEVPO_CODE_VERSION, else the installed package's version, else
    "unknown".
    """
    # Installed inside somebody else's checkout, git would answer with their commit: the top folder must be
    # ours.
    top = _git("rev-parse", "--show-toplevel")
    commit = _git("rev-parse", "HEAD") if top and Path(top).resolve() == _ROOT else None
    if commit:
        return commit, bool(_git("status", "--porcelain", "--", "components", "pipelines"))
    named = os.environ.get("ONLINEVPO_CODE_VERSION")
    if named:
        return named, False
    return _version(DISTRIBUTION) or "unknown", False


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that results depend on, found without importing them."""
    versions = {}
    for name in _LIBRARIES:
        if version := _version(name):
            versions[name] = version
    if "mlflow" not in versions and (skinny := _version("mlflow-skinny")):
        versions["mlflow"] = skinny  # the images hold the client alone, under this name
    return versions


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
