"""The lock files: complete, hashed, and of the versions that everything else is tested with."""

from __future__ import annotations

import re

import pytest

from images.catalogue import LOCKS, NAMES, ROOT, VARIANTS, sources
from images.lock import LOCAL_VERSION, LOCK_FILES, Lock, entries, normalised, pinned, version

#: What constraints.txt leaves open: CUDA's own packages, which torch pins, and what builds.
OPEN = re.compile(r"nvidia-.*|cuda-.*|triton|pip|setuptools")


def text(name: str) -> str:
    return (ROOT / LOCKS / f"{name}.txt").read_text()


def test_there_is_a_file_for_each_lock_and_no_other() -> None:
    asked = {name for lock in LOCK_FILES for name in lock.inputs}
    assert {path.stem for path in (ROOT / LOCKS).glob("*.txt")} == {lock.name for lock in LOCK_FILES}
    assert {path.stem for path in (ROOT / LOCKS).glob("*.in")} == asked


def test_every_lock_goes_into_an_image() -> None:
    used = {source for name in NAMES for variant in VARIANTS for source in sources(name, variant)}
    assert {f"{LOCKS}/{lock.name}.txt" for lock in LOCK_FILES} <= used


@pytest.mark.parametrize("lock", LOCK_FILES, ids=lambda lock: lock.name)
def test_every_line_is_a_version_or_one_of_its_hashes(lock: Lock) -> None:
    lines = [line for line in text(lock.name).splitlines() if not line.startswith("#")]
    hashes = 0
    for number, line in enumerate(lines):
        if line.startswith("    "):
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
            hashes += 1
        else:
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+ \\", line), line
            assert lines[number + 1].startswith("    --hash="), f"{line}: without a hash"
    assert hashes >= len(entries(text(lock.name))) > 0


@pytest.mark.parametrize("lock", LOCK_FILES, ids=lambda lock: lock.name)
def test_versions_are_those_of_constraints(lock: Lock) -> None:
    known = pinned()
    for name, entry in entries(text(lock.name)).items():
        if OPEN.fullmatch(name):
            continue
        local = LOCAL_VERSION[lock.variant] if name == "torch" and lock.variant else ""
        assert version(entry) == known[name] + local, f"{lock.name}.txt: {name}; run `python -m images lock`"


@pytest.mark.parametrize("lock", LOCK_FILES, ids=lambda lock: lock.name)
def test_what_is_asked_for_is_locked(lock: Lock) -> None:
    there = set(entries(text(lock.name)))
    for below in lock.below:
        there |= set(entries(text(below)))
    for name in lock.inputs:
        wanted = (ROOT / LOCKS / f"{name}.in").read_text().splitlines()
        assert {normalised(line) for line in wanted if line and not line.startswith("#")} <= there


def test_no_package_is_installed_twice() -> None:
    """An image gets the locks of its chain; a package in two of them would be in two layers."""
    for image in NAMES:
        for variant in VARIANTS:
            names = [s for s in sources(image, variant) if s.startswith(str(LOCKS)) and "build.txt" not in s]
            found = [name for source in names for name in entries((ROOT / source).read_text())]
            assert len(found) == len(set(found)), image.name


def test_control_needs_no_torch() -> None:
    assert not {"torch", "av", "diffusers", "kfp"} & set(entries(text("control")))


def test_variants_differ_in_torch_alone() -> None:
    cpu, cuda = (entries(text(f"compute-{variant}")) for variant in VARIANTS)
    extra = set(cuda) - set(cpu)
    assert extra and all(OPEN.fullmatch(name) for name in extra)
    assert {name for name in cpu if cpu[name] != cuda.get(name)} == {"torch"}
