"""Bills of materials say what the locks say; an audit counts what it could not ask."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.runtime.errors import InputError
from images import audit
from images.__main__ import app
from images.catalogue import LOCKS, ROOT
from images.lock import entries, normalised, version

LOG4 = {"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"], "aliases": [], "description": "bad"}
ANSWER = {
    "dependencies": [
        {"name": "good", "version": "1.0", "vulns": []},
        {"name": "bad", "version": "2.0", "vulns": [LOG4, {**LOG4, "id": "PYSEC-2", "fix_versions": []}]},
        {"name": "local", "skip_reason": "Dependency not found on PyPI and could not be audited"},
    ]
}


@pytest.mark.slow
def test_a_bill_lists_every_locked_package_with_its_hashes(tmp_path: Path) -> None:
    written = dict(audit.write_bills(tmp_path, "cpu"))
    assert {file.name for file in written} == {
        f"{name}-cpu.cdx.json" for name in ("control", "services", "data", "model", "evaluation")
    }
    # An image holds its parents' packages too: worked out here from the files, not by the code under test.
    names = ("build", "compute-cpu", "generation", "model")
    locked = {
        name: entry
        for lock in names
        for name, entry in entries((ROOT / LOCKS / f"{lock}.txt").read_text()).items()
    }
    bill = json.loads((tmp_path / "model-cpu.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX" and "timestamp" not in bill["metadata"]
    listed = {normalised(one["name"]): one for one in bill["components"]}
    assert listed.keys() == locked.keys() and len(listed) == written[tmp_path / "model-cpu.cdx.json"]
    for name, entry in locked.items():
        assert listed[name]["version"] == version(entry)
        (link,) = [link for link in listed[name]["externalReferences"] if link["type"] == "distribution"]
        hashes = {one["content"] for one in link["hashes"]}
        assert hashes == {part.split("sha256:")[1][:64] for part in entry.split("--hash=")[1:]}


def test_every_pinned_version_is_asked_for_once() -> None:
    asked = audit.pins()
    assert len(asked) == len(set(asked)) > 250
    torch = next(
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    )
    assert [one for one in asked if one.startswith("torch==")] == [torch]  # "+cpu" is the same version
    # Of the images alone: no environment of a developer's holds it.
    assert any(one.startswith("nvidia-") for one in asked)


def answering(answer: dict[str, Any]) -> Any:
    return lambda module, text, fine=(0,): json.dumps(answer)


def test_vulnerabilities_are_named_and_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_call", answering(ANSWER))
    done = CliRunner().invoke(app, ["audit"])
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "bad 2.0: PYSEC-1, fixed in 2.1, 3.0",
        "bad 2.0: PYSEC-2, no version without it",
        "2 vulnerabilities in 2 packages; nothing known of 1",
    ]


@pytest.mark.parametrize(("kept", "code"), [((0,), 0), ((2,), 1)])
def test_an_audit_that_knew_nothing_is_no_success(
    kept: tuple[int, ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"dependencies": [ANSWER["dependencies"][place] for place in kept]}
    monkeypatch.setattr(audit, "_call", answering(chosen))
    assert CliRunner().invoke(app, ["audit"]).exit_code == code


def test_a_tool_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(given, 1, "", "a traceback\nConnectionError: no route\n")

    monkeypatch.setattr(audit.subprocess, "run", failing)
    with pytest.raises(InputError, match=r"pip_audit ended with 1: ConnectionError: no route"):
        audit.audit(["torch==1.0"])
