"""The files of a version: a folder that MLflow loads as a pyfunc, and that people read without it.

Written here rather than by MLflow's `log_model`, which runs the model's code to write it: the registry step
runs in an image without torch. Models are from code; nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.registry.versions.model_card import card
from components.registry.versions.provenance import (
    LOCK,
    SCHEMA_VERSION,
    VersionOrigin,
    base_of,
    collect,
    write_sealed,
)
from components.runtime.artifacts.artifact import Artifact
from components.runtime.artifacts.manifest import MANIFEST

LOADERS = Path(__file__).with_name("loaders")
#: What of the evaluation a version holds beside manifest and metrics, where the evaluation made it.
EVALUATION = ("comparison.json", "pairs.jsonl", "table.txt", "report.html")
#: What alignment trained: a LoRA, or all of the denoiser's weights.
WEIGHTS = ("lora", "weights")
BASE = "base.json"
SETTINGS = "generator.json"
CARD = "card.md"


def pack_generator(origin: VersionOrigin, gate_digest: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Write a generator's version into an empty folder; returns its provenance and the SHA-256 of that."""
    opened = origin.opened
    aligned, evaluated = opened["alignment"], opened["evaluation"]
    trained = {name for name in aligned.manifest.files if name.partition("/")[0] in WEIGHTS}
    for name in trained:
        _copy(aligned.file(name), folder / name)
    places = {"aligned": min(trained).partition("/")[0], "settings": SETTINGS, "base": BASE}
    _copy(opened["generator"].file("generator.json"), folder / SETTINGS)
    (folder / BASE).write_text(json.dumps(base_of(origin), indent=1) + "\n", encoding="utf-8")
    for step, artifact in opened.items():
        _copy(artifact.path / MANIFEST, folder / step / MANIFEST)
        _copy(artifact.file("metrics.json"), folder / step / "metrics.json")
    for name in EVALUATION:
        if name in evaluated.manifest.files:
            _copy(evaluated.file(name), folder / "evaluation" / name)
    if Path(LOCK).is_file():
        _copy(Path(LOCK), folder / LOCK)
    about = {"kind": "generator", "alignment_digest": aligned.manifest.digest}
    _write_model(folder, "generator.py", places, evaluated, about)
    content = collect(origin, gate_digest)
    metrics = {name: artifact.metrics() for name, artifact in opened.items()}
    text = card(content, metrics, whole=places["aligned"] == "weights")
    (folder / CARD).write_text(text, encoding="utf-8")
    return content, write_sealed(content, folder)


def pack_reward(reward: Artifact, folder: Path) -> str:
    """Write a reward's version into an empty folder; returns the SHA-256 of its provenance."""
    for name in [MANIFEST, *reward.manifest.files]:
        _copy(reward.path / name, folder / "reward" / name)
    about = {"kind": "reward", "reward_digest": reward.manifest.digest}
    _write_model(folder, "reward.py", {"reward": "reward"}, reward, about)
    content = {
        "schema_version": SCHEMA_VERSION,
        "created": reward.manifest.created,
        "steps": {"reward": {"digest": reward.manifest.digest}},
    }
    return write_sealed(content, folder)


def _write_model(
    folder: Path,
    loader: str,
    artifacts: Mapping[str, str],
    made_by: Artifact,
    metadata: Mapping[str, Any],
) -> None:
    """Write MLmodel, the code MLflow runs on loading, and what that needs to be installed."""
    import yaml

    _copy(LOADERS / loader, folder / "model_code.py")
    libraries = made_by.manifest.libraries
    # A local label ("+cpu") names a build that no public index has.
    needs = [f"{name}=={version.partition('+')[0]}" for name, version in sorted(libraries.items())]
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in needs), encoding="utf-8")
    python = {"python": "3.11", "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(python), encoding="utf-8")
    flavour = {
        "loader_module": "mlflow.pyfunc.loaders.code_model",
        "model_code_path": "model_code.py",
        "python_version": "3.11",
        "artifacts": {name: {"path": path, "uri": path} for name, path in artifacts.items()},
        "code": None,
        "env": {"virtualenv": "python_env.yaml"},
        "streamable": False,
    }
    about = {
        "flavors": {"python_function": flavour},
        "metadata": {**metadata, "needs": f"onlinevpo {made_by.manifest.code_version}, installed"},
        "utc_time_created": made_by.manifest.created,
    }
    if "mlflow" in libraries:
        about["mlflow_version"] = libraries["mlflow"]
    (folder / "MLmodel").write_text(yaml.safe_dump(about, sort_keys=True), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
