"""Files of a version in the artifact store; each is checked against its digest before it is believed.

A version's provenance.json has the SHA-256 of every other file, and its own is a tag of the version (`SEAL`):
the database vouches for what lies in the artifact store.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from components.registry.gate.champion import read_rows
from components.registry.gate.gate import EvaluatedVersion
from components.registry.versions.provenance import PROVENANCE
from components.registry.versions.store import METRIC_PREFIX, RegisteredModel
from components.runtime.errors import InputError, one_line
from components.runtime.io.files import sha256_file
from components.runtime.tracking.mlflow_client import connect
from components.runtime.tracking.retry import call, is_absent

#: Tag with the SHA-256 of a version's provenance.json.
SEAL = "provenance_sha256"
STEPS = ("evaluation", "alignment", "generator", "reward")


class Unreadable(InputError):
    """A version's files are missing or altered; the version itself is there."""


def fetch(model: RegisteredModel, version: str, name: str, to: Path) -> Path:
    """Download a file or folder of a version ("" for all of it) into `to`; returns where it lies.

    Raises:
        Unreadable: it is not there.
    """
    source = _source(model, version)
    uri = f"{source}/{name}" if name else source
    return _download(uri, f"version {version} of {model.name}: {name or 'its files'}", to)


def fetch_from_run(run_id: str, name: str, to: Path) -> Path:
    """Download a file of a run into `to`; returns where it lies.

    Raises:
        Unreadable: it is not there.
    """
    return _download(f"runs:/{run_id}/{name}", f"run {run_id}: {name}", to)


def missing(model: RegisteredModel, version: str) -> list[str]:
    """Files of a version that are not in the artifact store, or of another size there; by listing it.

    Raises:
        Unreadable: its provenance is missing or altered.
    """
    content = provenance(model, version)
    if content is None:
        return []
    source, listing = _source(model, version), connect().artifacts.list_artifacts
    sizes: dict[str, int] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        uri = f"{source}/{folder}".rstrip("/")
        for entry in call(lambda uri=uri: listing(artifact_uri=uri)):  # type: ignore[misc]
            name = f"{folder}/{entry.path.rsplit('/', 1)[-1]}".lstrip("/")
            if entry.is_dir:
                folders.append(name)
            else:
                sizes[name] = entry.file_size
    return [name for name, entry in content["files"].items() if sizes.get(name) != entry["bytes"]]


def provenance(model: RegisteredModel, version: str) -> dict[str, Any] | None:
    """A version's provenance, checked against its seal; None for a version from before there was any.

    Raises:
        Unreadable: it is missing or altered.
    """
    seal = model.tags(version).get(SEAL)
    if seal is None:
        return None
    with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
        text = fetch(model, version, PROVENANCE, Path(scratch)).read_bytes()
    if hashlib.sha256(text).hexdigest() != seal:
        raise Unreadable(
            f"version {version} of {model.name}: {PROVENANCE} is altered: "
            "its SHA-256 is not the one in the registry"
        )
    content: dict[str, Any] = json.loads(text)
    return content


def evaluated(model: RegisteredModel, version: str, whole: bool = False) -> EvaluatedVersion:
    """A version as the gate sees it.

    Args:
        whole: check the weights and all else of the version too, not only what the gate reads.

    Raises:
        Unreadable: a file is missing or altered.
    """
    content = provenance(model, version)
    if content is None:
        return EvaluatedVersion(version, {"evaluation": _logged(model, version)}, model.tags(version))
    files = content["files"]
    with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
        root = fetch(model, version, "", Path(scratch)) if whole else None
        for name, entry in files.items() if root else ():
            if not (root / name).is_file() or sha256_file(root / name) != entry["sha256"]:
                raise Unreadable(
                    f"version {version} of {model.name}: {name} is missing or altered: "
                    "its SHA-256 is not the one recorded; register the candidate again"
                )

        def read(name: str) -> bytes:
            file = root / name if root else fetch(model, version, name, Path(scratch))
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest() != files[name]["sha256"]:
                raise Unreadable(f"version {version} of {model.name}: {name} is altered")
            return data

        metrics = {step: json.loads(read(f"{step}/metrics.json")) for step in STEPS}
        comparison = json.loads(read("evaluation/comparison.json"))
        rows: list[dict[str, Any]] = []
        if "evaluation/pairs.jsonl" in files:
            where = f"version {version} of {model.name}: pairs.jsonl"
            rows = read_rows(read("evaluation/pairs.jsonl"), where)
    digests = {name: str(value) for name, value in comparison.items() if name.endswith("_digest")}
    return EvaluatedVersion(version, metrics, digests, rows, comparison.get("unavailable", {}))


def _source(model: RegisteredModel, version: str) -> str:
    return str(model.client.get_model_version_download_uri(model.name, version)).rstrip("/")


def _download(uri: str, what: str, to: Path) -> Path:
    to.mkdir(parents=True, exist_ok=True)
    download = connect().artifacts.download_artifacts
    try:
        return Path(call(lambda: download(artifact_uri=uri, dst_path=str(to)), what))
    except InputError as error:
        if is_absent(error.__cause__):
            raise Unreadable(str(error)) from error
        raise
    except OSError as error:
        raise Unreadable(f"{what}: {one_line(error)}") from error


def _logged(model: RegisteredModel, version: str) -> dict[str, float]:
    """The evaluation's figures in the run of a version that carries no files of its evaluation."""
    run_id = model.client.get_model_version(model.name, version).run_id
    metrics = model.client.get_run(run_id).data.metrics if run_id else {}
    return {
        name.removeprefix(METRIC_PREFIX): value
        for name, value in metrics.items()
        if name.startswith(METRIC_PREFIX)
    }
