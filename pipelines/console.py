"""`onlinevpo`: every command of the project under one name; see `onlinevpo --help`.

The steps' verbs are subcommands (`onlinevpo reward score`), people's verbs stand at the top
(`onlinevpo promote`). Each is the function of the module command (`python -m components.reward score`), with
its options, its error lines and its exit codes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import typer

from components.runtime import step
from components.runtime.errors import InputError
from pipelines.steps import STEPS

ROOT = Path(__file__).resolve().parents[1]
#: Verbs of module commands that stand at the top, in the order of the help; a name for each, None to hide it.
VERBS: dict[str, dict[str, str | None]] = {
    "components": {
        "params": "params",
        "schema": "schema",
        "clean": "clean",
        "digests": None,
        "headline": None,
    },
    "components.registry": {"promote": "promote", "show": "show"},
    "pipelines": {
        "plan": "plan",
        "compile": "compile",
        "lint": "lint",
        "submit": "submit",
        "watch": "watch",
        "run-local": "local",
        "gitops": "gitops",
    },
}

#: What the first page says of a verb whose own help begins with a longer sentence; at most 65 characters.
SHORT = {
    "params": "Print every param, defaults and overrides applied.",
    "clean": "Remove artifacts, tracking and caches of this folder.",
    "promote": "Make a version the champion if it passes the gate, else exit 3.",
    "show": "List the registered versions and the record of promotions.",
    "plan": "Print the GPU memory and time that the alignment takes.",
    "compile": "Compile the Kubeflow pipeline to YAML.",
    "lint": "Check a compiled pipeline; exit 3 on a fault.",
    "watch": "Follow a submitted run; exit with its outcome.",
    "run-local": "Run the compiled pipeline on this machine.",
    "gitops": "Write a compiled pipeline as Kubernetes objects.",
}


def command() -> typer.Typer:
    """The command line. Importing the modules behind it imports neither torch nor kfp."""
    app = step.command_app("Align a text-to-video model to a video-quality reward, step by step.")
    app.command("run", short_help="Run the whole method in a checkout, as `make run` does.")(run)
    for module, names in VERBS.items():
        verbs = {verb.name or verb.callback.__name__: verb.callback
                 for verb in _app(module).registered_commands if verb.callback}  # fmt: skip
        for name, shown in names.items():
            app.command(shown or name, short_help=SHORT.get(name), hidden=shown is None)(verbs[name])
    modules = [*(f"components.{entry.name}" for entry in STEPS), "pipelines.stack"]
    if (ROOT / "images" / "catalogue.py").is_file():  # a checkout: wheels hold no images/
        sys.path.append(str(ROOT))
        modules.append("images")
    for module in modules:
        group, name = _app(module), module.rpartition(".")[2]
        app.add_typer(group, name=name, short_help=", ".join(_verbs(group)))
    return app


def _verbs(app: typer.Typer) -> list[str]:
    """Names of an app's commands and groups, hidden ones left out, in the order of its help."""
    commands = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback and not c.hidden]
    groups = [g.name or g.typer_instance.info.name for g in app.registered_groups if g.typer_instance]
    return [*commands, *map(str, groups)]


def run() -> None:
    """Run the whole method (`dvc repro`) in a checkout; print the decision, the table, the report."""
    from components.params import load_params

    if not Path("dvc.yaml").is_file():
        raise InputError("no dvc.yaml in this folder; run it in a checkout of the project")
    if subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True).returncode:
        raise InputError("DVC needs a git repository: clone the project, or git init, add and commit it")
    folder = Path(sys.executable).parent
    dvc = shutil.which("dvc", path=f"{folder}{os.pathsep}{os.environ.get('PATH', '')}")
    if dvc is None:
        raise InputError("dvc is not installed: pip install 'onlinevpo[dev]'")
    load_params(step.default_params())
    environment = {
        "ONLINEVPO_RUN": f"{datetime.now():%Y%m%d-%H%M%S}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "true",
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    for words in ([dvc, "repro"], ["python", "-m", "components.registry", "show"],
                  ["python", "-m", "components.evaluation", "table"]):  # fmt: skip
        code = subprocess.run(words, env=environment).returncode
        if code:
            raise typer.Exit(code)
    page = Path("artifacts/registry/report.html")
    if page.is_file():
        print(f"the same page with the registry's decision: {page}")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code: see `components.runtime.step.main`."""
    step.main(command(), arguments)


def _app(module: str) -> typer.Typer:
    app: typer.Typer = import_module(f"{module}.__main__").app
    return app


if __name__ == "__main__":
    main()
