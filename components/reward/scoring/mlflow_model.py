"""A reward as an MLflow model: a pyfunc from code, with paths or URIs in and scores out.

`save` writes one, `log` logs one to the tracking server; `mlflow.pyfunc.load_model` opens both. The model
holds the reward's files and one Python file of a few lines. It does not hold the project's code: the project
is to be installed where the model is loaded, as it is in its images. A copy inside the model would lose
against, or silently shadow, the installed one. Nothing in it is pickled.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from components.runtime.artifacts import outputs, provenance
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.errors import InputError, one_line
from components.runtime.tracking.mlflow_client import connect, tracking_uri

CODE = Path(__file__).with_name("pyfunc.py")
#: Name of the reward's folder among the model's artifacts.
REWARD = "reward"
#: Distributions that scoring imports; their installed versions become the model's requirements.
NEEDED = (
    "av",
    "boto3",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "safetensors",
    "scipy",
    "torch",
    "transformers",
)


def save(reward: str | Path | Artifact, target: str | Path) -> Path:
    """Write a reward as an MLflow model into a new folder.

    Args:
        reward: a reward's artifact: folder, s3:// URI, or opened.

    Raises:
        InputError: not a reward, or `target` is there already or cannot be written.
    """
    folder = outputs.target_of(target)
    outputs.never(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{target}: not empty, and an export replaces nothing; name a new folder")
    mlflow, given = connect(), _arguments(reward)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
            with _quiet():
                mlflow.pyfunc.save_model(path=f"{aside}/model", **given)
            Path(aside, "model").rename(folder)  # succeeds where nothing or an empty folder is
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise InputError(f"{target}: {one_line(error)}") from error
    return Path(target)


def log(reward: str | Path | Artifact, name: str = REWARD) -> str:
    """Log a reward as a model of the active MLflow run, or of a new one; returns the model's URI.

    Raises:
        InputError: not a reward, or the tracking server refuses.
    """
    mlflow, given = connect(), _arguments(reward)
    try:
        with _quiet():
            return str(mlflow.pyfunc.log_model(name=name, **given).model_uri)
    except mlflow.exceptions.MlflowException as error:
        raise InputError(f"{tracking_uri()}: {one_line(error)}") from error


def _arguments(reward: str | Path | Artifact) -> dict[str, Any]:
    """What `save_model` and `log_model` are given.

    No signature: it would allow either a list or a table with a column of prompts, and both are wanted.
    """
    from components.reward.base import read_config

    opened = reward
    if not isinstance(opened, Artifact):
        opened = open_artifact(opened, step="reward", allow_refused=True)
    config = read_config(opened.path)
    version, dirty = provenance.code_version()
    return {
        "python_model": str(CODE),
        "artifacts": {REWARD: str(opened.path)},
        "pip_requirements": _requirements(),
        "metadata": {
            "reward_digest": opened.manifest.digest,
            "kind": config.get("kind", "ladders"),
            "measured": config.get("measured", True),
            "refused": opened.manifest.refused or "",
            "needs": f"{provenance.DISTRIBUTION} {version}{' with changes' if dirty else ''}, installed",
        },
    }


def _requirements() -> list[str]:
    pinned = []
    for name in NEEDED:
        try:
            pinned.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return pinned


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's advice to store an example: a path that names a video on some machine helps nobody."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        yield


__all__ = ["CODE", "REWARD", "log", "save"]
