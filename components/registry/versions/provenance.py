"""What a version came from: code, params, data, base, reward, images, libraries, seeds, and what it cost."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.runtime.artifacts import provenance
from components.runtime.artifacts.artifact import Artifact
from components.runtime.artifacts.manifest import MANIFEST, Manifest, parse_manifest
from components.runtime.errors import InputError
from components.runtime.io import storage
from components.runtime.io.files import sha256_file
from components.runtime.params import canonical_json

SCHEMA_VERSION = 1
LOCK = "dvc.lock"
#: Set by the compiled pipeline on the registry's task: digests of the images, by family, as JSON.
IMAGES_VARIABLE = "ONLINEVPO_IMAGES"
RUN_VARIABLE = "ONLINEVPO_RUN"
NOT_MEASURED = "not measured: no step reads the machine's energy counter"


@dataclass(frozen=True)
class Origin:
    """The opened inputs of the registry step, and where each was said to lie."""

    opened: Mapping[str, Artifact]
    places: Mapping[str, str]

    @property
    def manifests(self) -> dict[str, Manifest]:
        """By step."""
        return {name: artifact.manifest for name, artifact in self.opened.items()}


def collect(origin: Origin, gate_digest: str) -> dict[str, Any]:
    """The provenance of a candidate as plain JSON values, without the files of the version itself."""
    manifests = origin.manifests
    evaluated = manifests["evaluation"]
    comparison = json.loads(origin.opened["evaluation"].file("comparison.json").read_text(encoding="utf-8"))
    commit, dirty = provenance.code_version()
    base = base_of(origin)
    corpus = corpus_beside(origin)
    with_corpus = manifests if corpus is None else {"corpus": corpus[1], **manifests}
    return {
        "schema_version": SCHEMA_VERSION,
        "created": evaluated.created,
        "code": {
            "commit": commit,
            "dirty": dirty or any(manifest.code_dirty for manifest in manifests.values()),
            "commits": {name: manifest.code_version for name, manifest in manifests.items()},
        },
        "params_digest": _digest({name: manifest.params_digest for name, manifest in manifests.items()}),
        "dvc_lock": _lock_digest(),
        "gate_digest": gate_digest,
        "steps": {name: _step(manifest, origin.places[name]) for name, manifest in manifests.items()},
        "corpus": {
            "digest": evaluated.inputs.get("corpus"),
            "place": corpus[0] if corpus else None,
            "prompts_sha256": corpus[1].files["prompts.jsonl"].sha256
            if corpus and "prompts.jsonl" in corpus[1].files
            else None,
        },
        "evaluated_on": {"prompts_and_seeds_digest": comparison["requests_digest"]},
        "reward": {
            "scores_digest": comparison["reward_digest"],
            "artifact": manifests["reward"].digest,
        },
        "base": base,
        "images": images(),
        # On a cluster the run is named by Kubeflow's id of it, and only there the images are known.
        "kfp_run_id": (os.environ.get(RUN_VARIABLE) or None) if images() else None,
        "pipeline_run": os.environ.get(RUN_VARIABLE) or None,
        "libraries": {name: dict(manifest.libraries) for name, manifest in manifests.items()},
        "seeds": {name: manifest.seed for name, manifest in with_corpus.items()},
        "cost": cost(origin, corpus[1] if corpus else None),
    }


def base_of(origin: Origin) -> dict[str, Any]:
    """The base model: how it was named, and the SHA-256 of every file of it."""
    generator = origin.manifests["generator"]
    files = {
        name.removeprefix("pipeline/"): entry.sha256
        for name, entry in sorted(generator.files.items())
        if name.startswith("pipeline/")
    }
    place = origin.places["generator"]
    return {
        "base": generator.params.get("base"),
        "revision": generator.params.get("revision"),
        "copy": f"{place.rstrip('/')}/pipeline" if storage.is_remote(place) else None,
        "files": files,
    }


def corpus_beside(origin: Origin) -> tuple[str, Manifest] | None:
    """The corpus that the evaluation was made from, where it lies beside the evaluation; else None."""
    head, slash, _ = origin.places["evaluation"].rstrip("/").rpartition("/")
    place = f"{head}{slash}corpus"
    try:
        text = storage.read_bytes(f"{place}/{MANIFEST}")
        manifest = None if text is None else parse_manifest(text, place)
    except (InputError, OSError):
        return None
    if manifest is None or manifest.digest != origin.manifests["evaluation"].inputs.get("corpus"):
        return None
    return place, manifest


def cost(origin: Origin, corpus: Manifest | None = None) -> dict[str, Any]:
    """What the run took, by step and phase. A resumed step counts the process that finished it only.

    GPU-hours are wall time x processes of the steps that ran on GPUs: each process of a step has one GPU.

    Args:
        corpus: the corpus's manifest where it is known; without it the total lacks that step.
    """
    phases: dict[str, Any] = {}
    gpu_seconds = 0.0
    for name, artifact in origin.opened.items():
        manifest = artifact.manifest
        parts = {}
        if "timing.json" in manifest.files:
            timing = json.loads(artifact.file("timing.json").read_text(encoding="utf-8"))
            parts = {
                key: value
                for key, value in timing.items()
                if isinstance(value, (int, float)) and "per" not in key
            }
        phases[name] = _spent(manifest, parts)
        on_gpu = manifest.device.startswith("cuda")
        gpu_seconds += phases[name]["process_seconds"] if on_gpu else 0.0
    if corpus is not None:
        phases["corpus"] = _spent(corpus, {})
    return {
        "steps": phases,
        "process_seconds": round(sum(part["process_seconds"] for part in phases.values()), 3),
        "gpu_hours": round(gpu_seconds / 3600, 6),
        "energy_joules": None,
        "energy_note": NOT_MEASURED,
    }


def _spent(manifest: Manifest, phases: Mapping[str, float]) -> dict[str, Any]:
    return {
        "process_seconds": round(manifest.wall_seconds * manifest.processes, 3),
        "processes": manifest.processes,
        "device": manifest.device,
        "phases": dict(phases),
    }


def images() -> dict[str, str]:
    """Digest of each container image, by family, as the pipeline named them; {} outside containers.

    Raises:
        InputError: the variable holds something else.
    """
    text = os.environ.get(IMAGES_VARIABLE)
    if not text:
        return {}
    try:
        found = json.loads(text)
        # What a run without containers is compiled with names no image at all.
        return {str(name): str(image) for name, image in found.items() if not image.startswith("none/")}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{IMAGES_VARIABLE}: must be a JSON object of image references") from error


def seal(content: Mapping[str, Any], folder: Path) -> bytes:
    """provenance.json of a version whose files lie in `folder`: `content` and the digest of every file."""
    files = {
        path.relative_to(folder).as_posix(): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return (json.dumps({**content, "files": files}, indent=1, sort_keys=True) + "\n").encode()


def _step(manifest: Manifest, place: str) -> dict[str, Any]:
    return {
        "digest": manifest.digest,
        "place": place,
        "params_digest": manifest.params_digest,
        "inputs": dict(manifest.inputs),
        "created": manifest.created,
    }


def _lock_digest() -> str | None:
    lock = Path(LOCK)
    return sha256_file(lock) if lock.is_file() else None


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
