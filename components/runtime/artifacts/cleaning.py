"""What `make clean` removes: what this project's commands made in its folder, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from components.runtime.artifacts.manifest import MANIFEST, parse_manifest
from components.runtime.artifacts.outputs import artifact_of, foreign_names, remove_result
from components.runtime.artifacts.workspace import discard, identity_of
from components.runtime.errors import InputError

DATABASE = "mlflow.db"
#: Where `python -m components digests` writes a file for each section of the params.
INPUTS = Path("artifacts", "inputs")
CACHES = (".pytest_cache", ".mypy_cache", ".ruff_cache")
_SQLITE = b"SQLite format 3\0"
_RUN = re.compile(r"[0-9a-f]{32}")


def clean(root: Path) -> list[Path]:
    """Remove artifacts, unfinished attempts, the local tracking store, bills of materials and caches.

    Args:
        root: the project's folder.

    Returns:
        What lies among them and was kept, because nothing tells that a command of ours made it.
    """
    for path in _entries(root / INPUTS):
        if path.suffix == ".json" and _is_digests(path):
            path.unlink()
    _rmdir(root / INPUTS)
    kept = [path for path in _entries(root / "artifacts") if not _removed(path)]
    _rmdir(root / "artifacts")
    # A lock of an interrupted attempt and the like lie beside the folder of artifacts, too.
    kept += [path for path in root.glob("*.partial") if not _removed(path)]
    database = root / DATABASE
    if database.is_file() and not database.is_symlink():
        if _is_tracking_store(database):
            for tail in ("", "-journal", "-wal", "-shm"):
                database.with_name(DATABASE + tail).unlink(missing_ok=True)
            database.with_name(f".{DATABASE}.lock").unlink(missing_ok=True)
        else:
            kept.append(database)
    for path in _entries(root / "mlruns"):
        if path.is_dir() and not path.is_symlink() and path.name.isdigit() and _is_mlflows(path):
            shutil.rmtree(path)
        else:
            kept.append(path)
    _rmdir(root / "mlruns")
    for path in _entries(root / "build" / "bom"):
        if path.name.endswith(".cdx.json") and _is_bill(path):
            path.unlink()
        else:
            kept.append(path)
    _rmdir(root / "build" / "bom")
    _rmdir(root / "build")
    for name in CACHES:
        if (root / name / "CACHEDIR.TAG").is_file() and not (root / name).is_symlink():
            shutil.rmtree(root / name)
        elif (root / name).exists():
            kept.append(root / name)
    return kept


def _removed(path: Path) -> bool:
    """Remove an artifact or an unfinished attempt at one; False for anything else, which stays."""
    if path.is_symlink() or not path.is_dir():
        return False
    if path.name.endswith(".partial") and identity_of(path):
        discard(path)
        return not path.exists()
    try:
        kind = artifact_of(parse_manifest((path / MANIFEST).read_bytes(), str(path)).step)
        if foreign_names(path, kind):
            return False
    except (InputError, OSError):
        return False
    remove_result(path, kind)
    return True


def _is_tracking_store(file: Path) -> bool:
    """Whether a file is a database in which MLflow keeps experiments."""
    with file.open("rb") as stream:
        if stream.read(len(_SQLITE)) != _SQLITE:
            return False
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            count = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'experiments'")
            return bool(count.fetchone()[0])
    except sqlite3.Error:
        return False


def _is_mlflows(experiment: Path) -> bool:
    """Whether an experiment's folder holds runs, models and traces by MLflow's ids and nothing else."""
    return all(
        entry.name in ("meta.yaml", "models", "traces", "tags") or _RUN.fullmatch(entry.name)
        for entry in experiment.iterdir()
    )


def _is_digests(file: Path) -> bool:
    """Whether all that a file says is digests of params of one section, that which it is named after."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and all(name.startswith(f"{file.stem}.") for name in content)


def _is_bill(file: Path) -> bool:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("bomFormat") == "CycloneDX"


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _rmdir(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
