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
PROVENANCE = "provenance.json"
#: Set by the compiled pipeline on the registry's task: digests of the images, by family, as JSON.
IMAGES_VARIABLE = "ONLINEVPO_IMAGES"
RUN_VARIABLE = "ONLINEVPO_RUN"
NOT_MEASURED = "not measured: no step reads the machine's energy counter"


@dataclass(frozen=True)
class VersionOrigin:
    """The opened inputs of the registry step, and where each was said to lie."""

    opened: Mapping[str, Artifact]
    places: Mapping[str, str]

    @property
    def manifests(self) -> dict[str, Manifest]:
        """By step."""
        return {name: artifact.manifest for name, artifact in self.opened.items()}


def collect(origin: VersionOrigin, gate_digest: str) -> dict[str, Any]:
    """The provenance of a candidate as plain JSON values, without the files of the version itself."""
    manifests = origin.manifests
    evaluated = manifests["evaluation"]
    comparison = json.loads(origin.opened["evaluation"].file("comparison.json").read_text(encoding="utf-8"))
    commit, dirty = provenance.code_version()
    place, corpus = corpus_beside(origin) or (None, None)
    with_corpus = manifests if corpus is None else {"corpus": corpus, **manifests}
    prompts = None if corpus is None else corpus.files.get("prompts.jsonl")
    run = os.environ.get(RUN_VARIABLE) or None
    return {
        "schema_version": SCHEMA_VERSION,
        "created": evaluated.created,
        "code": {
            "commit": commit,
            "dirty": dirty or any(manifest.code_dirty for manifest in manifests.values()),
            "commits": {name: manifest.code_version for name, manifest in manifests.items()},
        },
        "params_digest": _digest({name: manifest.params_digest for name, manifest in manifests.items()}),
        "dvc_lock": sha256_file(Path(LOCK)) if Path(LOCK).is_file() else None,
        "gate_digest": gate_digest,
        "steps": {
            name: {
                "digest": manifest.digest,
                "place": origin.places[name],
                "params_digest": manifest.params_digest,
                "inputs": dict(manifest.inputs),
                "created": manifest.created,
            }
            for name, manifest in manifests.items()
        },
        "corpus": {
            "digest": evaluated.inputs.get("corpus"),
            "place": place,
            "prompts_sha256": prompts.sha256 if prompts else None,
        },
        "evaluated_on": {"prompts_and_seeds_digest": comparison["requests_digest"]},
        "reward": {"scores_digest": comparison["reward_digest"], "artifact": manifests["reward"].digest},
        "base": base_of(origin),
        "images": images(),
        # On a cluster the run is named by Kubeflow's id of it, and only there the images are known.
        "kfp_run_id": run if images() else None,
        "pipeline_run": run,
        "libraries": {name: dict(manifest.libraries) for name, manifest in manifests.items()},
        "seeds": {name: manifest.seed for name, manifest in with_corpus.items()},
        "cost": cost(origin, corpus),
    }


def base_of(origin: VersionOrigin) -> dict[str, Any]:
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


def corpus_beside(origin: VersionOrigin) -> tuple[str, Manifest] | None:
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


def cost(origin: VersionOrigin, corpus: Manifest | None = None) -> dict[str, Any]:
    """What the run took, by step and phase. A resumed step counts the process that finished it only.

    GPU-hours are wall time x processes of the steps that ran on GPUs: each process of a step has one GPU.

    Args:
        corpus: the corpus's manifest where it is known; without it the total lacks that step.
    """
    steps: dict[str, Any] = {}
    for name, manifest in (origin.manifests | ({"corpus": corpus} if corpus else {})).items():
        timing: dict[str, Any] = {}
        if name in origin.opened and "timing.json" in manifest.files:
            timing = json.loads(origin.opened[name].file("timing.json").read_text(encoding="utf-8"))
        steps[name] = {
            "process_seconds": round(manifest.wall_seconds * manifest.processes, 3),
            "processes": manifest.processes,
            "device": manifest.device,
            "phases": {
                key: value
                for key, value in timing.items()
                if isinstance(value, (int, float)) and "per" not in key
            },
        }
    on_gpu = [name for name, artifact in origin.opened.items() if artifact.manifest.device.startswith("cuda")]
    gpu_seconds = sum(steps[name]["process_seconds"] for name in on_gpu)
    return {
        "steps": steps,
        "process_seconds": round(sum(step["process_seconds"] for step in steps.values()), 3),
        "gpu_hours": round(gpu_seconds / 3600, 6),
        "energy_joules": None,
        "energy_note": NOT_MEASURED,
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


def write_sealed(content: Mapping[str, Any], folder: Path) -> str:
    """Write provenance.json, `content` and the digest of every file in `folder`; returns its SHA-256."""
    files = {
        path.relative_to(folder).as_posix(): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    text = (json.dumps({**content, "files": files}, indent=1, sort_keys=True) + "\n").encode()
    (folder / PROVENANCE).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
