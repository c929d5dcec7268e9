"""What is in the images, as CycloneDX bills of materials, and which of it has known vulnerabilities."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.runtime.artifacts.outputs import check_file
from components.runtime.errors import InputError
from images.catalogue import LOCKS, NAMES, ROOT, Variant, locks
from images.lock import entries

_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^\s;\\]+)")


@dataclass(frozen=True)
class Advisory:
    """A known vulnerability of a version that is used.

    Attributes:
        fixed: versions without it, oldest first; empty where there is none.
    """

    package: str
    version: str
    name: str
    fixed: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """What the advisory service knew.

    Attributes:
        asked: packages by name and version.
        unknown: those that the service does not have, so that nothing is known of them.
    """

    asked: int
    unknown: tuple[str, ...]
    advisories: tuple[Advisory, ...]


def write_bills(folder: Path, variant: Variant) -> list[tuple[Path, int]]:
    """Write `<image>-<variant>.cdx.json` for every image: each Python package in it with version and hashes.

    The system's packages are the base image's and are not among them.

    Returns:
        The files, and how many packages each lists.

    Raises:
        InputError: the generator of the bills is not installed, or fails.
    """
    files = {name: folder / f"{name}-{variant}.cdx.json" for name in NAMES}
    for file in files.values():
        check_file(file, "a bill of materials", _is_bill)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for image, file in files.items():
        packages = {
            name: entry
            for lock in locks(image, variant)
            for name, entry in entries((ROOT / lock).read_text()).items()
        }
        # Reproducible: without the time and a random serial number, so that a difference is one of packages.
        command = ["cyclonedx_py", "requirements", "--output-reproducible", "-o", str(file), "-"]
        _call(command, "".join(packages[name] for name in sorted(packages)))
        written.append((file, len(json.loads(file.read_text())["components"])))
    return written


def _is_bill(file: Path) -> bool:
    found = json.loads(file.read_text())
    return isinstance(found, dict) and found.get("bomFormat") == "CycloneDX"


def pins(root: Path = ROOT) -> list[str]:
    """`name==version` of all that constraints.txt and the locks pin, once each, without local suffixes."""
    files = [root / "constraints.txt", *sorted((root / LOCKS).glob("*.txt"))]
    found = {
        f"{match[1].lower().replace('_', '-')}=={match[2].partition('+')[0]}"
        for file in files
        for match in map(_PIN.match, file.read_text().splitlines())
        if match
    }
    return sorted(found)


def audit(requirements: list[str]) -> Audit:
    """Ask PyPI's advisory service about versions.

    Args:
        requirements: `name==version` each.

    Raises:
        InputError: the service cannot be reached, or pip-audit is not installed.
    """
    command = ["pip_audit", "--no-deps", "--disable-pip", "--progress-spinner=off", "-f", "json", "-r"]
    answer = _call([*command, "/dev/stdin"], "\n".join(requirements) + "\n", fine=(0, 1))
    return read_answer(json.loads(answer))


def read_answer(answer: dict[str, Any]) -> Audit:
    """What pip-audit's JSON says."""
    packages = answer["dependencies"]
    return Audit(
        asked=len(packages),
        unknown=tuple(one["name"] for one in packages if "skip_reason" in one),
        advisories=tuple(
            Advisory(one["name"], one["version"], found["id"], tuple(found["fix_versions"]))
            for one in packages
            for found in one.get("vulns", ())
        ),
    )


def _call(module: list[str], text: str, fine: tuple[int, ...] = (0,)) -> str:
    """What `python -m module` writes to its standard output, given a text."""
    done = subprocess.run([sys.executable, "-m", *module], input=text, capture_output=True, text=True)
    if done.returncode not in fine or (done.returncode and not done.stdout.startswith("{")):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{module[0]} ended with {done.returncode}: {last}; both tools come with `.[dev]`")
    return done.stdout
