"""Kills every step at random moments, says again what was said, and compares with a run left alone.

    python -m tests.faults.kills [--kills N] [--seed S] [--only STEP]

A table comes out: kills by SIGTERM and SIGKILL, outputs compared with the uninterrupted one, and how many
were wrong. Exit code 1 if any was.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from components.runtime.artifacts.artifact import open_artifact
from components.runtime.compute.devices import configure_determinism, configure_threads
from components.runtime.errors import InputError
from tests.faults.chain import STEPS, Attempt, Chain

SHARES = {"corpus": 6, "generator": 6, "reward": 1, "alignment": 4, "evaluation": 2, "registry": 1}
"""How the kills are shared out: a kill of a step that takes long costs more."""
TERM_PATIENCE_S = 60.0
MODEL, REWARD_MODEL = "onlinevpo-generator", "onlinevpo-reward"


@dataclass
class Row:
    """What came of killing one step."""

    step: str
    seconds: float = 0.0
    term: int = 0
    kill: int = 0
    compared: int = 0
    wrong: list[str] = field(default_factory=list)


def warm() -> None:
    """Import what the steps import, so that a fork begins to work at once."""
    configure_threads()
    configure_determinism()
    for step in STEPS:
        importlib.import_module(f"components.{step}.step")
        importlib.import_module(f"components.{step}.__main__")
    import mlflow  # noqa: F401


def environment(folder: Path, step: str, number: int) -> dict[str, str]:
    """The registry's promotions go to a database of their own for each output: they change what is there."""
    found = {"ONLINEVPO_TRACKING": "off", "ONLINEVPO_CACHE": str(folder / "cache")}
    if step == "registry":
        found["MLFLOW_TRACKING_URI"] = f"sqlite:///{_database(folder, number)}"
    return found


def _database(folder: Path, number: int) -> Path:
    """An MLflow database of its own; making its tables takes seconds, so they are made once and copied."""
    template, file = folder / "empty.db", folder / f"registry{number}.db"
    if not template.exists():
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{template}").search_experiments()
    if not file.exists():
        shutil.copyfile(template, file)
    return file


def result(folder: Path, step: str, out: Path, number: int, ended: bool = True) -> str:
    """What must be the same: the artifact's digest; of the registry, who is champion and what verify says."""
    artifact = open_artifact(out, step=step)
    left = [path.name for path in out.rglob(".*")]
    if left and ended:
        raise InputError(f"{out}: left behind: {left}")
    if step != "registry":
        return artifact.manifest.digest
    os.environ.update(environment(folder, step, number))
    from components.registry.promote import Promotions
    from components.registry.promotion_log import CHAMPION
    from components.registry.verify import verify
    from components.registry.versions.store import RegisteredModel

    models = RegisteredModel(MODEL)
    champion = models.resolve(CHAMPION)
    items = verify(Promotions(models, RegisteredModel(REWARD_MODEL)), champion)
    differing = [item for item in items if item.state == "differs"]
    state, entries = models.log.read()
    took = [entry for entry in entries if entry.effective]
    tags = models.tags(champion)
    accepted = artifact.metrics()["accepted"]
    return (
        f"{len(differing)} {len(took)} {state.champion == champion} {accepted} {tags['evaluation_artifact']}"
    )


def killed(
    chain: Chain, step: str, kills: int, seed: int, say: Callable[[str], None] = lambda line: None
) -> Row:
    """Kill a step's command `kills` times over as many outputs as that takes."""
    row, moments = Row(step), random.Random(f"{seed} {step}")
    whole = chain.folder / f"whole-{step}"
    for _ in range(2):  # the second finds the caches filled, as all that follow do
        began = time.monotonic()
        code = chain.run(step, whole, environment(chain.folder, step, 0))
        row.seconds = time.monotonic() - began
        if code != 0:
            row.wrong.append(f"the uninterrupted run ended with {code}")
            return row
    expected = result(chain.folder, step, whole, 0)
    number = 0
    while row.term + row.kill < kills:
        number += 1
        out = chain.folder / f"cut-{step}-{number}"
        more = environment(chain.folder, step, number)
        while True:
            attempt = chain.begin(step, out, more)
            left = kills - row.term - row.kill
            if left > 0 and moments.random() < 0.7 and _wait(attempt, moments.uniform(0.0, row.seconds)):
                _end(attempt, moments.choice((signal.SIGTERM, signal.SIGKILL)), row)
                if out.exists():
                    _compare(chain, step, out, number, expected, row, after="a kill")
                continue
            code = attempt.wait()
            if code == 0:
                break
            row.wrong.append(f"{out.name}: ended with {code}: {attempt.log.read_text()[-300:]}")
            return row
        if any(out.with_name(f"{out.name}.partial").glob("*")):
            row.wrong.append(f"{out.name}: a workspace is left")
        _compare(chain, step, out, number, expected, row, after="the last run")
        say(f"{step}: {row.term + row.kill} kills, {row.compared} compared, {len(row.wrong)} wrong")
    return row


def _compare(chain: Chain, step: str, out: Path, number: int, expected: str, row: Row, after: str) -> None:
    row.compared += 1
    try:
        # Another process: what the registry keeps in memory of one database is of no use for the next.
        if step == "registry" and after == "a kill":
            open_artifact(out, step=step)
            return
        found = result(chain.folder, step, out, number, ended=after != "a kill")
        if found != expected:
            row.wrong.append(f"{out.name} after {after}: {found}, expected {expected}")
    except InputError as error:
        row.wrong.append(f"{out.name} after {after}: {error}")


def _wait(attempt: Attempt, seconds: float) -> bool:
    """Wait that long; whether the attempt is still running."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if attempt.ended():
            return False
        time.sleep(0.005)
    return not attempt.ended()


def _end(attempt: Attempt, number: signal.Signals, row: Row) -> None:
    os.kill(attempt.pid, number)
    if number == signal.SIGTERM:
        row.term += 1
        if _wait(attempt, TERM_PATIENCE_S):
            row.wrong.append(f"still running {TERM_PATIENCE_S:.0f} s after SIGTERM")
            os.kill(attempt.pid, signal.SIGKILL)
    else:
        row.kill += 1
    code = attempt.wait()
    # 0: the signal came when all was done; 143, -15: before the step had begun to listen.
    if code not in (0, 75, -signal.SIGTERM, -signal.SIGKILL):
        row.wrong.append(f"ended with {code} after {number.name}: {attempt.log.read_text()[-300:]}")


def table(rows: list[Row]) -> str:
    """A row for each step, a sum, then everything that was wrong."""
    lines = [f"{'step':<12} {'run s':>6} {'TERM':>5} {'KILL':>5} {'kills':>6} {'compared':>9} {'wrong':>6}"]
    for one in [*rows, _sum(rows)]:
        lines.append(
            f"{one.step:<12} {one.seconds:>6.1f} {one.term:>5} {one.kill:>5} {one.term + one.kill:>6} "
            f"{one.compared:>9} {len(one.wrong):>6}"
        )
    return "\n".join([*lines, *(f"{one.step}: {fault}" for one in rows for fault in one.wrong)])


def _sum(rows: list[Row]) -> Row:
    faults = [fault for one in rows for fault in one.wrong]
    return Row(
        "all",
        sum(one.seconds for one in rows),
        sum(one.term for one in rows),
        sum(one.kill for one in rows),
        compared=sum(one.compared for one in rows),
        wrong=faults,
    )


def main() -> int:
    """See the module."""
    asked = argparse.ArgumentParser(prog="python -m tests.faults.kills")
    asked.add_argument("--kills", type=int, default=204)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--only", default="", help="steps, by commas")
    given = asked.parse_args()
    chosen = [step for step in STEPS if not given.only or step in given.only.split(",")]
    share = given.kills / sum(SHARES[step] for step in chosen)
    warm()
    # Artifacts are pushed to the disk when they are published; in memory that costs nothing.
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    rows = []
    with tempfile.TemporaryDirectory(prefix="onlinevpo-kills-", dir=place) as scratch:
        chain = Chain.make(Path(scratch))
        for step in STEPS:
            if step != "reward":  # the later steps have one that was not trained
                code = chain.run(step, step, environment(chain.folder, step, -1))
                if code != 0:
                    print((chain.folder / f"{step}.log").read_text())
                    return 1
            if step in chosen:
                kills = math.ceil(share * SHARES[step])  # no fewer than were asked for
                rows.append(killed(chain, step, kills, given.seed, lambda line: print(line, file=sys.stderr)))
                print(table(rows[-1:]), file=sys.stderr, flush=True)
    print(table(rows))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
