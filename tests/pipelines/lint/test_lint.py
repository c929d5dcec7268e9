"""The linter: golden files have no faults; each fault, made by one edit of one, is found as itself."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.runtime.errors import GateRefused, InputError
from pipelines.compiler.compile import documents_of
from pipelines.compiler.image_digests import Images
from pipelines.compiler.profile import load_profile, profile_names
from pipelines.lint.lint import _parsed, findings, lint_or_refuse, read_pipeline
from pipelines.lint.rules import RULES
from tests.pipelines.lint.faults import (
    AWS_KEY,
    FAULTS,
    HUB_TOKEN,
    Documents,
)


@pytest.fixture(scope="module")
def whole(golden: Path) -> Documents:
    return read_pipeline(golden / "miniature-cpu.yaml")


@pytest.fixture
def good(whole: Documents) -> Documents:
    return copy.deepcopy(whole)


@pytest.mark.parametrize("name", [name for name in profile_names() if name.startswith("miniature")])
def test_the_golden_files_have_no_faults(name: str, golden: Path) -> None:
    assert findings(read_pipeline(golden / f"{name}.yaml")) == []
    lint_or_refuse(golden / f"{name}.yaml")


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_compiles_without_faults(name: str, sections: dict[str, Any], images: Images) -> None:
    assert findings(documents_of(sections, load_profile(name), images)) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_as_itself(fault: str, good: Documents) -> None:
    edit, where, what = FAULTS[fault]
    edit(good)
    found = findings(good)
    assert [finding.where for finding in found] == [where]
    assert what in found[0].what
    assert found[0].allowed
    assert AWS_KEY not in str(found[0]).removeprefix(where) and HUB_TOKEN not in str(found[0])


def test_every_rule_has_a_broken_file(good: Documents) -> None:
    silent = {look.__name__ for look in RULES}
    for edit, _, _ in FAULTS.values():
        broken = copy.deepcopy(good)
        edit(broken)
        compiled = _parsed(broken, "broken")
        silent -= {look.__name__ for look in RULES if list(look(compiled))}
    assert silent == set()


def test_several_faults_are_all_listed_and_the_exit_code_is_3(
    good: Documents, repository: Path, tmp_path: Path
) -> None:
    for fault in ("tag", "no retry", "no exit task"):
        FAULTS[fault][0](good)
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump_all(good))
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "lint", str(file)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 3
    assert {line.split(": ")[0] for line in lines[:-1]} == {
        FAULTS[fault][1] for fault in ("tag", "no retry", "no exit task")
    }
    assert lines[-1] == f"refused: {file}: 3 faults, see above"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no documents with pipelineInfo and root"),
        ("a: [", "not readable as YAML"),
        ("just words", "must be a compiled pipeline"),
        ("kind: ConfigMap\nmetadata: {name: x}\n", "must be a compiled pipeline"),
        ("pipelineInfo: {name: x}\nroot: {dagg: {}}\n", "no field named"),
        ("pipelineInfo: {name: x}\nroot: {dag: {}}\n---\nother: 1\n", "at most one of `platforms`"),
        ("pipelineInfo: {name: x}\nroot: {}\n---\npipelineInfo: {name: x}\nroot: {}\n", "2 documents"),
        ("pipelineInfo: {name: x}\nroot: 7\n", "not a compiled pipeline"),
    ],
)
def test_what_is_no_pipeline_is_bad_input(text: str, part: str, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        lint_or_refuse(file)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_a_pipeline_without_platform_document_is_linted_too(good: Documents, tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(good[0]))
    with pytest.raises(GateRefused, match="1 fault,"):
        lint_or_refuse(file)
