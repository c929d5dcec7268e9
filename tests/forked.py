"""A step's command line in a fork of the test process: its own streams, folder and exit code.

A new interpreter takes seconds to import what a command needs; a mistake is told in a fraction of one. The
command is as a person would give it from `components.runtime.step.main` on.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from components.runtime.step import main


def run_command(
    step: str, *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m components.<step> <arguments>` in a folder; what it wrote, and how it ended.

    Args:
        environment: beside that of the test process.
    """
    app = importlib.import_module(f"components.{step}.__main__").app
    importlib.import_module(f"components.{step}.step")  # what `run` would import
    files = [cwd.parent / f".{cwd.name}.{os.getpid()}.{name}" for name in ("out", "err")]
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number, file in zip((1, 2), files, strict=True):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            # pytest has put its own in their place.
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            os.chdir(cwd)
            os.environ.update(environment or {})
            try:
                main(app, arguments)
            except SystemExit as end:
                code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = [file.read_text() for file in files]
    for file in files:
        file.unlink()
    return subprocess.CompletedProcess([step, *arguments], code, *said)
