"""Two promotions at the same moment, by two processes: one champion, and the record of how it came about."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from components.registry.params import RegistryParams
from components.registry.promotion_log import CHAMPION, PREVIOUS, LogEntry
from components.registry.step import run
from components.registry.versions.store import RegisteredModel
from tests.registry.conftest import Candidate

#: Only better than the champion is let through, so that it is known who must be champion in the end.
GATE = "champion: [{metric: judge, margin: 0.0, confident: true}]"


@contextmanager
def promoter(model: str, gate: Path, repository: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that promotes on command; ready when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.registry.promoter", model, str(gate)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def race(model: str, rounds: int, candidate: Candidate, tmp_path: Path, repository: Path) -> tuple[int, int]:
    """Race two versions for champion, many times; returns how often an entry came too late, and rounds in
    which the worse one was never champion.
    """
    gate = tmp_path / "gate.yaml"
    gate.write_text(GATE)
    params = RegistryParams.model_validate(
        {"model": model, "reward_model": f"{model}-reward", "gate": str(gate), "run": {"device": "cpu"}}
    )
    for name, judge in (("worst", 0.5), ("middle", 0.6), ("best", 0.7)):
        # Each passes when it comes, so all three are registered, and the record is reset below.
        run(params, **candidate(name, **{"aligned/judge": judge}), out=tmp_path / "registry")
    models = RegisteredModel(model)
    late = refused = 0
    with ExitStack() as stack:
        racers = [stack.enter_context(promoter(model, gate, repository)) for _ in range(2)]
        for number in range(rounds):
            state, before = models.log.read()
            models.log.compare_and_set(LogEntry("adopted", "1", "1", "", state.head, "the test starts again"))
            moment = time.monotonic() + 0.05
            order = racers if number % 2 else racers[::-1]
            for racer, version in zip(order, ("2", "3"), strict=True):
                assert racer.stdin is not None
                racer.stdin.write(f"{version} {moment}\n")
                racer.stdin.flush()
            said = [racer.stdout.readline().strip() for racer in order if racer.stdout is not None]
            state, entries = models.log.read()
            fresh = entries[len(before) + 1 :]
            took = [entry.version for entry in fresh if entry.effective]
            middle_refused = any(e.action == "refused" and e.version == "2" for e in fresh)
            # The better one is the champion whoever was first, the worse one was before it or was refused.
            assert state.champion == "3" and said[1] == "accepted", (said, fresh)
            assert took == (["3"] if middle_refused else ["2", "3"]), fresh
            assert said[0] == ("refused" if middle_refused else "accepted"), fresh
            assert state.previous == ("1" if middle_refused else "2")
            aliases = models.aliases()
            assert (aliases[CHAMPION], aliases[PREVIOUS]) == ("3", state.previous)
            assert all(e.decision and e.why and e.by and e.at for e in fresh), fresh
            assert len({entry.token for entry in fresh}) == len(fresh)
            late += sum(not e.effective and e.action == "promoted" for e in fresh)
            refused += middle_refused
    numbers = [entry.number for entry in models.log.read()[1]]
    assert numbers == list(range(1, len(numbers) + 1)), "a line of the record is missing"
    print(f"{rounds} rounds: {late} entries came too late, the worse one was refused {refused} times")
    return late, refused


@contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """An MLflow server of its own process, on SQLite."""
    uri = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", f"sqlite:///{folder}/server.db", "--workers", "1"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "MLFLOW_TRACKING_URI": ""},
        )
    try:
        end = time.monotonic() + 200
        while True:
            try:
                if requests.get(f"{uri}/health", timeout=2).status_code == 200:
                    break
            except requests.RequestException:
                pass
            assert time.monotonic() < end and process.poll() is None, (folder / "server.log").read_text()[
                -2000:
            ]
            time.sleep(0.2)
        yield uri
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_on_a_database(candidate: Candidate, tmp_path: Path, repository: Path, mlflow_home: Path) -> None:
    race("raced", 5, candidate, tmp_path, repository)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_times_on_a_database(
    candidate: Candidate, tmp_path: Path, repository: Path, mlflow_home: Path
) -> None:
    late, _ = race("raced-long", 50, candidate, tmp_path, repository)
    assert late > 0, "the two never met: this shows nothing"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_times_on_a_server(
    candidate: Candidate,
    tmp_path: Path,
    repository: Path,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with server(tmp_path, free_port) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        late, _ = race("raced", 50, candidate, tmp_path, repository)
    assert late > 0, "the two never met: this shows nothing"


def test_an_entry_whose_writer_died_before_the_aliases_moved_is_followed_by_the_next_command(
    candidate: Candidate, tmp_path: Path, mlflow_home: Path
) -> None:
    from components.registry.promote import Promotions

    params = RegistryParams.model_validate({"model": "died", "reward_model": "died-reward"})
    for name, judge in (("a", 0.7), ("b", 0.8)):
        run(params, **candidate(name, **{"aligned/judge": judge}), out=tmp_path / "registry")
    promotions = Promotions(RegisteredModel("died"), RegisteredModel("died-reward"))
    log = promotions.generator.log
    last = log.read()[1][-1]
    log.compare_and_set(
        replace(last, action="rolled back", version="1", champion="1", previous="2", expects=last.number)
    )
    assert promotions.generator.aliases()[CHAMPION] == "2"
    assert promotions.stale_aliases() == [
        "alias champion is version 2, the log says 1",
        "alias previous is version 1, the log says none",
    ]
    promotions.sync_aliases()
    assert promotions.generator.aliases() == {"candidate": "2", CHAMPION: "1"}
    assert promotions.stale_aliases() == []
