"""`make install`, `make run` and `make ui` say in a line what is missing, before they begin."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


def python(folder: Path, name: str, before: str) -> Path:
    """An interpreter that runs these statements before what it is told by -c."""
    file = folder / name
    file.write_text(
        f'#!/bin/sh\nshift\nexec {sys.executable} -c "{before}; import sys; exec(sys.argv.pop(1))" "$@"\n'
    )
    file.chmod(0o755)
    return file


@pytest.fixture
def project(tmp_path: Path, repository: Path) -> Path:
    """The files that `make install` reads, as a ZIP leaves them."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, folder)
    return folder


def make(project: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    # Nothing is fetched, and no repository above counts.
    own = {"PIP_NO_INDEX": "1", "PIP_NO_INPUT": "1", "GIT_CEILING_DIRECTORIES": str(project.parent)}
    return subprocess.run(
        ["make", *words], cwd=project, env={**kept, **own, **variables}, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one line before make's own."""
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_the_versions_are_those_of_the_project(repository: Path) -> None:
    requires = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", requires).groups()  # type: ignore[union-attr]
    named = re.search(r"^good = \((.*)\)$", (repository / "Makefile").read_text(), re.M)
    assert named is not None
    assert named[1] == ", ".join(f'"3.{minor}"' for minor in range(int(low), int(high)))


@pytest.mark.parametrize("version", ["(3, 13, 1)", "(3, 10, 4)", "(2, 7, 18)"])
def test_an_unsuitable_python_is_named_first(project: Path, tmp_path: Path, version: str) -> None:
    file = python(tmp_path, "python", f"import sys; sys.version_info = {version}; sys.version = '{version}'")
    line = said(make(project, "install", f"PYTHON={file}"))
    assert line.startswith("needs Python 3.11 or 3.12, and ") and version.split()[0] in line
    assert line.endswith("make install PYTHON=/path/to/python3.11")
    assert not (project / ".venv").exists()


def test_no_python_and_a_python_without_venv(project: Path, tmp_path: Path) -> None:
    line = said(make(project, "install", "PYTHON=python-of-nobody"))
    assert line.startswith("no python-of-nobody here") and "PYTHON=/path" in line
    file = python(tmp_path, "bare", "import sys; sys.modules['ensurepip'] = None")
    assert f"apt install python{OWN}-venv" in said(make(project, "install", f"PYTHON={file}"))
    assert not (project / ".venv").exists()


def test_a_folder_that_is_no_environment_is_left_alone(project: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv" / "notes.txt").write_text("mine")
    assert ".venv: holds no virtual environment" in said(make(project, "install", f"PYTHON={sys.executable}"))
    assert [p.name for p in (project / ".venv").iterdir()] == ["notes.txt"]


def environment_of(project: Path, answer: str) -> Path:
    """An environment whose Python answers so, and whose pip writes down what it is told."""
    scripts = project / ".venv" / "bin"
    scripts.mkdir(parents=True)
    (project / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    for name, text in (("python", answer), ("pip", f'echo "$*" >> {project}/pip.log')):
        (scripts / name).write_text(f"#!/bin/sh\n{text}\n")
        (scripts / name).chmod(0o755)
    return scripts


@pytest.mark.parametrize(
    ("answer", "words", "part"),
    [
        ("echo 3.13", (), "its Python is of Python 3.13, not 3.11 or 3.12; remove that folder"),
        ("exit 1", (), "its Python does not run, or has no pip; remove that folder"),
        ("echo 3.99", ("PYTHON=python3",), "is of Python 3.99, not "),
    ],
)
def test_an_environment_of_another_python_is_refused(
    project: Path, answer: str, words: tuple[str, ...], part: str
) -> None:
    environment_of(project, answer)
    line = said(make(project, "install", *(w.replace("python3", sys.executable) for w in words)))
    assert line.startswith(".venv: ") and part in line and "make install VENV=FOLDER" in line
    assert not (project / "pip.log").exists()


def test_an_environment_that_will_do_is_not_made_anew(project: Path) -> None:
    scripts = environment_of(project, f"echo {OWN}")
    before = (scripts / "python").read_bytes()
    done = make(project, "install", f"PYTHON={sys.executable}")
    assert done.returncode == 0, done.stderr
    assert (scripts / "python").read_bytes() == before
    assert "-c constraints.txt" in (project / "pip.log").read_text()


@pytest.mark.slow
def test_an_environment_is_made_by_the_python_that_was_named(project: Path) -> None:
    done = make(project, "install", f"PYTHON={sys.executable}")
    assert done.returncode == 2 and "pip" in done.stderr  # which has no index here
    asked = [str(project / ".venv" / "bin" / "python"), "-c", "import sys, pip; print(sys.version)"]
    assert subprocess.run(asked, capture_output=True, text=True).stdout.strip() == sys.version


def test_run_says_that_it_needs_a_repository(project: Path) -> None:
    done = make(project, "run")
    assert done.returncode == 2
    assert "make run needs git and a git repository" in done.stderr and "git init" in done.stderr
    assert not (project / ".venv").exists()  # said first
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    assert make(project, "checkout").returncode == 0


def test_a_port_that_is_taken_is_said_in_a_line(project: Path) -> None:
    scripts = environment_of(project, f'exec {sys.executable} "$@"')
    (scripts / "mlflow").write_text("#!/bin/sh\necho serving\n")
    (scripts / "mlflow").chmod(0o755)
    (project / ".venv" / ".installed").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert (
            said(make(project, "ui", f"PORT={port}")) == f"port {port} is taken; another: make ui PORT=5001"
        )
    assert make(project, "ui", f"PORT={port}").stdout.splitlines()[-1] == "serving"
