"""Checks a version against its provenance: every digest that can be checked from here, and what differs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.registry.promote import REWARD_VERSION, Promotions
from components.registry.versions.store import Models
from components.runtime.artifacts.manifest import MANIFEST, Manifest, parse_manifest
from components.runtime.errors import InputError, one_line
from components.runtime.io import storage
from components.runtime.io.files import sha256_file

#: What a version holds that provenance.json does not list: itself, and what MLflow adds.
_UNLISTED = ("provenance.json", "registered_model_meta")


#: The project's own folder, in which the built-in base lies.
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finding:
    """One thing checked: `same`, `differs`, or `absent` where it cannot be had from here."""

    what: str
    state: Literal["same", "differs", "absent"]
    note: str = ""

    @property
    def line(self) -> str:
        """``DIFFERS  version 2: lora/pytorch_lora_weights.safetensors: its SHA-256 ...``."""
        word = {"same": "same", "differs": "DIFFERS", "absent": "absent"}[self.state]
        return f"{word:8} {self.what}{f': {self.note}' if self.note else ''}"


def verify(promotions: Promotions, version: str) -> list[Finding]:
    """Check a version of the generator, the reward it was judged by, its inputs where they lie, the record.

    Raises:
        InputError: the registry cannot be reached, or the version carries no provenance.
    """
    generator = promotions.generator
    found: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="onlinevpo-verify-") as scratch:
        content = _sealed(generator, version, Path(scratch), found)
        if content is not None:
            found += _inputs(content)
            found += _base(content["base"])
    judged_by = generator.tags(version).get(REWARD_VERSION)
    if judged_by is not None and judged_by not in {row["version"] for row in promotions.reward.versions()}:
        what = f"{promotions.reward.name} version {judged_by}"
        found.append(Finding(what, "differs", "it judged this version, and was deleted in MLflow"))
    elif judged_by is not None:
        with tempfile.TemporaryDirectory(prefix="onlinevpo-verify-") as scratch:
            _sealed(promotions.reward, judged_by, Path(scratch), found)
    found += _decisions(promotions, version)
    found += [Finding("champions", "differs", words) for words in promotions.present().gone]
    astray = promotions.astray()
    found += [Finding("aliases", "differs", words) for words in astray] or [Finding("aliases", "same")]
    return found


def _sealed(models: Models, version: str, scratch: Path, found: list[Finding]) -> dict[str, Any] | None:
    """Check a version's files; its provenance, None where that itself cannot be believed."""
    name = f"{models.name} version {version}"
    try:
        content = models.provenance(version, scratch)
    except InputError as error:
        found.append(Finding(f"{name}: provenance.json", "differs", str(error)))
        return None
    if content is None:
        raise InputError(
            f"{name} carries no provenance: it was registered before versions did; register it again"
        )
    found.append(Finding(f"{name}: provenance.json", "same"))
    root = models.fetch(version, "", scratch / "files")
    for file, entry in content["files"].items():
        found.append(_file(f"{name}: {file}", root / file, entry["sha256"]))
    for path in sorted(root.rglob("*")):
        file = path.relative_to(root).as_posix()
        if path.is_file() and file not in content["files"] and not file.startswith(_UNLISTED):
            found.append(Finding(f"{name}: {file}", "differs", "not among the files that were registered"))
    return content


def _inputs(content: Mapping[str, Any]) -> Iterator[Finding]:
    """The artifacts a version was made from, where they were; named by step and file."""
    places = {step: (about["place"], about["digest"]) for step, about in content["steps"].items()}
    corpus = content["corpus"]
    if corpus["place"]:
        places["corpus"] = (corpus["place"], corpus["digest"])
    for step, (place, digest) in sorted(places.items()):
        try:
            text = storage.read_bytes(f"{place.rstrip('/')}/{MANIFEST}")
        except (InputError, OSError) as error:
            yield Finding(f"{step} artifact at {place}", "absent", one_line(error))
            continue
        if text is None:
            yield Finding(f"{step} artifact at {place}", "absent", "nothing there")
            continue
        try:
            manifest = parse_manifest(text, f"{place}/{MANIFEST}")
        except InputError as error:
            yield Finding(f"{step} artifact at {place}: {MANIFEST}", "differs", str(error))
            continue
        if manifest.digest != digest:
            note = f"it is {manifest.digest[:16]}, the version was made from {digest[:16]}"
            yield Finding(f"{step} artifact at {place}: {MANIFEST}", "differs", note)
            continue
        yield from _files(step, place, manifest)


def _files(step: str, place: str, manifest: Manifest) -> Iterator[Finding]:
    for name, entry in manifest.files.items():
        what = f"{step} artifact at {place}: {name}"
        if not storage.is_remote(place):
            yield _file(what, storage.local_path(place) / name, entry.sha256)
            continue
        with tempfile.TemporaryDirectory(prefix="onlinevpo-verify-") as scratch:
            copy = Path(scratch) / "file"
            try:
                storage.fetch_file(f"{place.rstrip('/')}/{name}", copy)
            except InputError as error:
                yield Finding(what, "differs", str(error))
                continue
            yield _file(what, copy, entry.sha256)


def _base(about: Mapping[str, Any]) -> Iterator[Finding]:
    """The base, where it is a folder on this machine; elsewhere loading checks it."""
    named = Path(str(about["base"]))
    folder = next((place for place in (named, ROOT / named) if place.is_dir()), None)
    if folder is None:
        yield Finding(
            f"base {about['base']}", "absent", "no folder here; it is checked whenever it is loaded"
        )
        return
    for name, digest in about["files"].items():
        yield _file(f"base {about['base']}: {name}", folder / name, digest)


def _decisions(promotions: Promotions, version: str) -> Iterator[Finding]:
    """The decision records about a version, against the digests that the record keeps."""
    for entry in promotions.generator.record.read()[1]:
        if entry.version != version or not entry.decision:
            continue
        what = f"decision of entry {entry.number}"
        with tempfile.TemporaryDirectory(prefix="onlinevpo-verify-") as scratch:
            try:
                file = promotions.decision_file(version, entry, Path(scratch))
            except InputError as error:
                yield Finding(what, "differs", str(error))
                continue
            yield _file(what, file, entry.decision)


def _file(what: str, path: Path, digest: str) -> Finding:
    if not path.is_file():
        return Finding(what, "differs", "missing")
    seen = sha256_file(path)
    return (
        Finding(what, "same")
        if seen == digest
        else Finding(what, "differs", f"its SHA-256 is {seen[:16]}, recorded is {digest[:16]}")
    )
