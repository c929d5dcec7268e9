"""Check of a version against its provenance: every digest that can be checked from here, and what differs."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.registry.decisions import decision_file
from components.registry.promote import REWARD_VERSION, Promotions
from components.registry.versions.files import fetch, provenance
from components.registry.versions.store import RegisteredModel
from components.runtime.artifacts.manifest import MANIFEST, parse_manifest
from components.runtime.errors import InputError, one_line
from components.runtime.io import storage
from components.runtime.io.files import sha256_file

#: What a version holds that provenance.json does not list: itself, and what MLflow adds.
_UNLISTED = ("provenance.json", "registered_model_meta")
#: The project's own folder, in which the built-in base lies.
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class VerifiedItem:
    """One thing checked: `same`, `differs`, or `absent` where it is not available from here."""

    what: str
    state: Literal["same", "differs", "absent"]
    note: str = ""

    @property
    def line(self) -> str:
        """`DIFFERS  version 2: lora/pytorch_lora_weights.safetensors: its SHA-256 ...`."""
        word = {"same": "same", "differs": "DIFFERS", "absent": "absent"}[self.state]
        return f"{word:8} {self.what}{f': {self.note}' if self.note else ''}"


def verify(promotions: Promotions, version: str) -> list[VerifiedItem]:
    """Check a version of the generator, the reward it was judged by, its inputs where they lie, the log.

    Raises:
        InputError: the registry cannot be reached, or the version carries no provenance.
    """
    with tempfile.TemporaryDirectory(prefix="onlinevpo-verify-") as scratch:
        return list(_items(promotions, version, Path(scratch)))


def _items(promotions: Promotions, version: str, scratch: Path) -> Iterator[VerifiedItem]:
    generator, reward = promotions.generator, promotions.reward
    content = yield from _sealed(generator, version, scratch / "generator")
    if content is not None:
        yield from _inputs(content, scratch)
        yield from _base(content["base"])
    judged_by = generator.tags(version).get(REWARD_VERSION)
    if judged_by is not None and judged_by not in reward.numbers():
        note = "it judged this version, and was deleted in MLflow"
        yield VerifiedItem(f"{reward.name} version {judged_by}", "differs", note)
    elif judged_by is not None:
        yield from _sealed(reward, judged_by, scratch / "reward")
    for entry in generator.log.read()[1]:
        if entry.version == version and entry.decision:
            what = f"decision of entry {entry.number}"
            try:
                file = decision_file(generator, version, entry, scratch / f"entry-{entry.number}")
            except InputError as error:
                yield VerifiedItem(what, "differs", str(error))
            else:
                yield _file(what, file, entry.decision)
    for words in promotions.current().deleted:
        yield VerifiedItem("champions", "differs", words)
    stale = promotions.stale_aliases()
    for words in stale:
        yield VerifiedItem("aliases", "differs", words)
    if not stale:
        yield VerifiedItem("aliases", "same")


def _sealed(
    model: RegisteredModel, version: str, scratch: Path
) -> Generator[VerifiedItem, None, dict[str, Any] | None]:
    """Check a version's files; returns its provenance, None where that itself cannot be believed."""
    name = f"{model.name} version {version}"
    try:
        content = provenance(model, version)
    except InputError as error:
        yield VerifiedItem(f"{name}: provenance.json", "differs", str(error))
        return None
    if content is None:
        raise InputError(
            f"{name} carries no provenance: it was registered before versions did; register it again"
        )
    yield VerifiedItem(f"{name}: provenance.json", "same")
    root = fetch(model, version, "", scratch)
    for file, entry in content["files"].items():
        yield _file(f"{name}: {file}", root / file, entry["sha256"])
    for path in sorted(root.rglob("*")):
        file = path.relative_to(root).as_posix()
        if path.is_file() and file not in content["files"] and not file.startswith(_UNLISTED):
            yield VerifiedItem(f"{name}: {file}", "differs", "not among the files that were registered")
    return content


def _inputs(content: Mapping[str, Any], scratch: Path) -> Iterator[VerifiedItem]:
    """The artifacts a version was made from, where they were; named by step and file."""
    places = {step: (about["place"], about["digest"]) for step, about in content["steps"].items()}
    if content["corpus"]["place"]:
        places["corpus"] = (content["corpus"]["place"], content["corpus"]["digest"])
    for step, (place, digest) in sorted(places.items()):
        artifact = f"{step} artifact at {place}"
        try:
            text = storage.read_bytes(f"{place.rstrip('/')}/{MANIFEST}")
        except (InputError, OSError) as error:
            yield VerifiedItem(artifact, "absent", one_line(error))
            continue
        if text is None:
            yield VerifiedItem(artifact, "absent", "nothing there")
            continue
        try:
            manifest = parse_manifest(text, f"{place}/{MANIFEST}")
        except InputError as error:
            yield VerifiedItem(f"{artifact}: {MANIFEST}", "differs", str(error))
            continue
        if manifest.digest != digest:
            note = f"it is {manifest.digest[:16]}, the version was made from {digest[:16]}"
            yield VerifiedItem(f"{artifact}: {MANIFEST}", "differs", note)
            continue
        for name, entry in manifest.files.items():
            what = f"{artifact}: {name}"
            if not storage.is_remote(place):
                yield _file(what, storage.local_path(place) / name, entry.sha256)
                continue
            copy = scratch / "input"
            try:
                storage.fetch_file(f"{place.rstrip('/')}/{name}", copy)
                yield _file(what, copy, entry.sha256)
            except InputError as error:
                yield VerifiedItem(what, "differs", str(error))
            copy.unlink(missing_ok=True)


def _base(about: Mapping[str, Any]) -> Iterator[VerifiedItem]:
    """The base, where it is a folder on this machine; elsewhere loading checks it."""
    named, what = Path(str(about["base"])), f"base {about['base']}"
    folder = next((place for place in (named, ROOT / named) if place.is_dir()), None)
    if folder is None:
        yield VerifiedItem(what, "absent", "no folder here; it is checked whenever it is loaded")
        return
    for name, digest in about["files"].items():
        yield _file(f"{what}: {name}", folder / name, digest)


def _file(what: str, path: Path, digest: str) -> VerifiedItem:
    if not path.is_file():
        return VerifiedItem(what, "differs", "missing")
    seen = sha256_file(path)
    if seen == digest:
        return VerifiedItem(what, "same")
    return VerifiedItem(what, "differs", f"its SHA-256 is {seen[:16]}, recorded is {digest[:16]}")
