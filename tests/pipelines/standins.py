"""Stand-ins for the steps: commands on the real step contract that only hash, and go wrong when asked to.

`install` makes a folder that goes to the front of PYTHONPATH; `python -m components.STEP` then starts the
stand-in. What it should do wrong is in the environment: ONLINEVPO_STANDINS = {"alignment": "die once"}.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from components.runtime.artifacts import remote_checkpoints as mirror
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.publish import Workspace, publish
from components.runtime.compute import devices
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import GateRefused, InputError
from components.runtime.params import StepParams
from components.runtime.step import main, step_app
from components.runtime.tracking.step_run import track
from pipelines.steps import step

FAULTS, LOG = "ONLINEVPO_STANDINS", "ONLINEVPO_STANDINS_LOG"
LINKS = 6
SRCC = 0.95  # what the stand-in of the reward always reaches


class StandInParams(StepParams):
    """Any section, as it comes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    gate: dict[str, Any] | None = None  # the registry's is a file, none unless named


@dataclass
class Result:
    metrics: dict[str, float]


def install(folder: Path, steps: Sequence[str]) -> Path:
    """Make `folder` such that, on PYTHONPATH, it puts stand-ins in the place of `steps`."""
    names = [f"components.{name}" for name in steps]
    hook = f"""import sys
if set(sys.orig_argv) & set({names!r}):
    import components
    components.__path__.insert(0, {str(folder / "components")!r})
"""
    for name in steps:
        package = folder / "components" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(
            f"from tests.pipelines.standins import command\ncommand({name!r})\n"
        )
    (folder / "sitecustomize.py").write_text(hook)
    return folder


def attempts(log: Path, name: str) -> list[int]:
    """Of each attempt at a step: the link of its chain that it began with."""
    entries = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [int(start) for step, start in entries if step == name]


def command(name: str) -> None:
    """The command line of a stand-in."""
    devices.has_torch = lambda: False  # torch takes seconds to import
    inputs = step(name).inputs

    def run(params: StandInParams, **given: Any) -> Result:
        return _run(name, params, {key: given[key] for key in inputs}, given["out"])

    main(step_app(name, StandInParams, run, inputs=inputs))


def _run(name: str, params: StandInParams, inputs: dict[str, str], out: str) -> Result:
    fault = json.loads(os.environ.get(FAULTS, "{}")).get(name, "")
    if fault == "silent":
        _log(name, 0)
        sys.exit(0)
    opened = {key: open_artifact(uri, step=key) for key, uri in inputs.items()}
    with (
        track(name, params),
        publish(out, step=name, params=params, inputs=opened) as workspace,
        StopSignal() as stop,
    ):
        if fault == "bad input":
            raise InputError("the stand-in does not like what it was given")
        seed = [str(params.run.seed), name, *(a.manifest.digest for a in opened.values())]
        value = _chain(name, hashlib.sha256("/".join(seed).encode()).hexdigest(), workspace, stop, fault)
        (workspace.dir / "result.txt").write_text(value)
        (workspace.dir / "card.md").write_text(f"# card of {name}\n")
        (workspace.dir / "report.html").write_text(f"<p>report of {name}</p>")
        metrics = {"links": float(LINKS), "srcc_world": SRCC, "accepted": 1.0}
        workspace.write_metrics(metrics)
        wanted = float((params.gate or {}).get("srcc_world", -1.0))
        if wanted > SRCC:
            workspace.publish_on_refusal = True
            raise GateRefused(f"{name} gate: srcc_world {SRCC:.3f} < {wanted:.3f}")
    return Result(metrics)


def _chain(name: str, value: str, workspace: Workspace, stop: StopSignal, fault: str) -> str:
    """Hash LINKS times, a checkpoint after each."""
    file, first = workspace.checkpoints / "chain.json", 0
    if file.exists():
        first, value = json.loads(file.read_text())
    _log(name, first)
    for link in range(first, LINKS):
        if link == 3 and fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if link == 3 and fault == "die once" and first == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        while link == 3 and fault == "wait" and not stop.requested:
            time.sleep(0.05)
        stop.raise_if_requested()
        value = hashlib.sha256(value.encode()).hexdigest()
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps([link + 1, value]))
        aside.replace(file)
        mirror.saved(file)
    return value


def _log(name: str, first: int) -> None:
    with open(os.environ[LOG], "a") as log:
        log.write(f"{name} {first}\n")
