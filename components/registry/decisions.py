"""Decision records: a JSON file for each decision, in a run of the version; the log has its SHA-256."""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.registry.gate.gate import Decision
from components.registry.promotion_log import LogEntry
from components.registry.versions.files import fetch_from_run
from components.registry.versions.store import RegisteredModel
from components.runtime.errors import InputError
from components.runtime.gate.rules import Check
from components.runtime.gate.thresholds import Gate

FOLDER = "decisions"


def decision_record(
    model: str, version: str, decision: Decision, gate: Gate, note: str = ""
) -> dict[str, Any]:
    """A decision with the gate it was made by, as plain JSON values."""
    found: dict[str, Any] = {"model": model, "version": version} | decision.as_json()
    return found | {"gate": {"digest": gate.digest, "rules": gate.model_dump(mode="json")}, "note": note}


def write_decision(model: RegisteredModel, version: str, decision: Decision, gate: Gate, note: str) -> str:
    """Write the record of a decision beside the version's files; returns its SHA-256."""
    text = json.dumps(decision_record(model.name, version, decision, gate, note), indent=1) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
        file = Path(scratch) / f"{digest[:16]}.json"
        file.write_text(text, encoding="utf-8")
        model.client.log_artifact(model.writable_run(version), str(file), FOLDER)
    return digest


def read_decision(model: RegisteredModel, version: str, entry: LogEntry) -> Decision | None:
    """The decision of an entry; None where its file is missing, altered or in the form of another release."""
    with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
        try:
            text = decision_file(model, version, entry, Path(scratch)).read_bytes()
            if hashlib.sha256(text).hexdigest() != entry.decision:
                return None
            found = json.loads(text)
            checks = tuple(Check(**check) for check in found["checks"])
            reasons = tuple(found["reasons"])
            return Decision(found["outcome"], reasons, checks, found["champion"], found["gate"]["digest"])
        except (InputError, OSError, ValueError, KeyError, TypeError):
            return None


def decision_file(model: RegisteredModel, version: str, entry: LogEntry, to: Path) -> Path:
    """Download the decision record of an entry into `to`.

    Raises:
        InputError: it is not there.
    """
    name = f"{FOLDER}/{entry.decision[:16]}.json"
    runs = model.runs_of(version)
    for run_id in runs[:-1]:
        with suppress(InputError):
            return fetch_from_run(run_id, name, to)
    if not runs:
        raise InputError(f"version {version} of {model.name} has no run that could hold {name}")
    return fetch_from_run(runs[-1], name, to)
