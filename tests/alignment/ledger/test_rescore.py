"""A ledger judged again: by the same reward it is the same ledger, by the opposite one every pair turns."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from components.alignment.__main__ import app
from components.alignment.ledger import LedgerReader, LedgerWriter, read_pairs, rescore
from components.alignment.ledger.rescore import compare
from components.generator.generator import Generator
from components.runtime.artifacts.artifact import Artifact
from components.runtime.artifacts.publish import StepResult
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError, Interrupted
from tests.alignment.ledger.made import Light, draw, make_base, make_reward, publish_ledger, write

Judge = Callable[..., StepResult]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Artifact:
    return make_base(tmp_path_factory.mktemp("base"), tiny_folder)


@pytest.fixture(scope="module")
def drawn(base: Artifact) -> list[list[Any]]:
    generator = Generator.load(base.path)
    return [draw(generator, iteration) for iteration in range(2)]


@pytest.fixture
def judge(tmp_path: Path, base: Artifact, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Rescore by the light (1) or the dark (-1)."""

    def run(ledger: Path, sign: float, out: str = "again") -> StepResult:
        monkeypatch.setattr(rescore, "open_reward", lambda artifact, device: Light(sign))
        name = tmp_path / f"reward{sign}"
        reward = name if name.exists() else make_reward(tmp_path, name.name).path
        return rescore.rescore(ledger, generator=base.path, reward=reward, out=tmp_path / out, device="cpu")

    return run


def ledger_of(
    folder: Path, drawn: list[list[Any]], base: Artifact, keep: str = "pairs", policy: int = 4
) -> Path:
    """Iteration 0 was drawn by the base, iteration 1 by a policy of some steps."""
    writer = LedgerWriter(folder / "parts")
    for iteration, groups in enumerate(drawn):
        write(writer, iteration, groups, keep=keep, policy=policy * iteration)  # type: ignore[arg-type]
    return publish_ledger(folder / "ledger", writer, len(drawn), base)


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "ledger.parquet").to_pylist()
    return found


def test_the_same_reward_says_the_same(
    tmp_path: Path, drawn: list[list[Any]], base: Artifact, judge: Judge
) -> None:
    first = ledger_of(tmp_path, drawn, base, keep="all")
    done = judge(first, 1.0)
    for old, new in zip(rows(first), rows(done.out), strict=True):
        assert old["reward"] == pytest.approx(new["reward"], abs=1e-4)
        assert (old["role"], old["verdict"], old["seed"]) == (new["role"], new["verdict"], new["seed"])
        assert old["policy_version"] == new["policy_version"] and old["reward_digest"] != new["reward_digest"]
        assert old["motion"] == pytest.approx(new["motion"], abs=1e-6) and new["aspect_red"] > 0
    assert done.metrics["agreement"] == 1.0 and done.metrics["rank_correlation"] == pytest.approx(1.0)
    assert done.metrics["lost"] == done.metrics["redrawn"] == done.metrics["flips"] == 0


def test_the_opposite_reward_turns_every_pair(
    tmp_path: Path, drawn: list[list[Any]], base: Artifact, judge: Judge
) -> None:
    first = ledger_of(tmp_path, drawn, base, keep="all")
    done = judge(first, -1.0)
    assert done.metrics["agreement"] == 0.0 and done.metrics["rank_correlation"] == pytest.approx(-1.0)
    old, new = read_pairs(first, base), read_pairs(done.out, base)
    assert len(old.pairs) == len(new.pairs) == done.metrics["compared"] == done.metrics["flips"]
    for before, after in zip(old.pairs, new.pairs, strict=True):
        winner, loser = old.latents(before)
        winner_now, loser_now = new.latents(after)
        assert torch.equal(winner, loser_now) and torch.equal(loser, winner_now)
        assert before.gap == pytest.approx(after.gap, abs=1e-4)
    with (done.out / "flips.csv").open() as file:
        flips = list(csv.DictReader(file))
    assert [float(flip["gap"]) for flip in flips] == [pair.gap for pair in old.pairs]
    assert all(float(flip["gap_again"]) == pytest.approx(-float(flip["gap"]), abs=1e-4) for flip in flips)


def test_what_the_base_drew_is_drawn_again_and_the_rest_is_lost(
    tmp_path: Path, drawn: list[list[Any]], base: Artifact, judge: Judge
) -> None:
    first = ledger_of(tmp_path, drawn, base)
    done = judge(first, 1.0)
    new = {(row["iteration"], row["prompt_id"], row["candidate"]): row for row in rows(done.out)}
    old = rows(first)
    kept = [row for row in old if row["iteration"] == 0 or row["role"]]
    assert sorted(new) == sorted((row["iteration"], row["prompt_id"], row["candidate"]) for row in kept)
    for row in kept:
        again = new[row["iteration"], row["prompt_id"], row["candidate"]]
        assert row["reward"] == pytest.approx(again["reward"], abs=0.02)
    assert done.metrics["lost"] == len(old) - len(kept) > 0
    assert done.metrics["redrawn"] == sum(not row["latents"] for row in kept) > 0


def test_nothing_to_judge_and_another_base(
    tmp_path: Path, drawn: list[list[Any]], base: Artifact, judge: Judge, tiny_folder: Path
) -> None:
    writer = LedgerWriter(tmp_path / "parts")
    write(writer, 0, drawn[1], keep="none", policy=4)
    with pytest.raises(InputError, match="no clip is available"):
        judge(publish_ledger(tmp_path / "ledger", writer, 1, base), 1.0)
    other = make_base(tmp_path, tiny_folder, "other")
    with pytest.raises(InputError, match="a ledger of another base"):
        judge(publish_ledger(tmp_path / "foreign", writer, 1, other), 1.0)
    assert not (tmp_path / "again").exists() and not (tmp_path / "again.partial").exists()


def test_stopped_and_gone_on_with_it_is_the_same(
    tmp_path: Path, drawn: list[list[Any]], base: Artifact, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ledger_of(tmp_path, drawn, base)
    whole = judge(first, -1.0, "whole")
    before = StopSignal.raise_if_requested
    monkeypatch.setattr(StopSignal, "raise_if_requested", lambda self: _interrupt())
    with pytest.raises(Interrupted):
        judge(first, -1.0, "cut")
    monkeypatch.setattr(StopSignal, "raise_if_requested", before)
    cut = judge(first, -1.0, "cut")
    for name in ("ledger.parquet", "flips.csv", "metrics.json", "latents/000000.safetensors"):
        assert (whole.out / name).read_bytes() == (cut.out / name).read_bytes()


def _interrupt() -> None:
    raise Interrupted


def table(rewards: dict[str, list[float]], roles: dict[str, list[str]]) -> list[dict[str, Any]]:
    return [
        {
            "iteration": 0, "prompt_id": prompt, "candidate": index, "reward": reward, "gap": 1.0,
            "role": roles[prompt][index], "verdict": "accepted", "prompt": "a film", "latents": "x",
        }
        for prompt, values in rewards.items()
        for index, reward in enumerate(values)
    ]  # fmt: skip


def test_agreement_by_hand() -> None:
    roles = {
        "a": ["winner", "", "loser"],
        "b": ["winner", "loser"],
        "c": ["loser", "winner"],
        "d": ["winner", "loser"],
    }
    first = table({"a": [3.0, 2.0, 1.0], "b": [2.0, 1.0], "c": [0.0, 1.0], "d": [1.0, 0.0]}, roles)
    again = table({"a": [9.0, 1.0, 5.0], "b": [4.0, 4.0], "c": [7.0, 2.0], "d": [1.0, math.nan]}, roles)
    flips, metrics = compare(first, again)
    # a agrees, b is a tie, c turns round, d cannot be compared.
    assert (metrics["compared"], metrics["ties"], metrics["flips"]) == (3, 1, 1)
    assert metrics["agreement"] == pytest.approx(1.5 / 3)
    assert [(flip["prompt_id"], flip["winner"], flip["gap_again"]) for flip in flips] == [("c", 1, -5.0)]
    expected = stats.spearmanr([3.0, 2.0, 1.0], [9.0, 1.0, 5.0]).statistic
    assert metrics["rank_correlation"] == pytest.approx(expected) == pytest.approx(0.5)


def test_a_rescored_ledger_can_be_rescored(
    tmp_path: Path, drawn: list[list[Any]], base: Artifact, judge: Judge
) -> None:
    first = ledger_of(tmp_path, drawn, base)
    turned = judge(first, -1.0, "turned")
    back = judge(turned.out, 1.0, "back")

    def seeds(ledger: Path) -> dict[tuple[int, str], tuple[int, int]]:
        pairs = LedgerReader.open(ledger).pairs
        return {(p.iteration, p.prompt.id): (p.winner["seed"], p.loser["seed"]) for p in pairs}

    old, new = seeds(first), seeds(back.out)
    assert {key: new[key] for key in old} == old


@pytest.mark.parametrize("verb", ["rescore", "replay"])
def test_the_command(
    verb: str, tmp_path: Path, drawn: list[list[Any]], base: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ledger_of(tmp_path, drawn, base)
    monkeypatch.setattr(rescore, "open_reward", lambda artifact, device: Light(-1.0))
    reward = make_reward(tmp_path, "dark").path
    inputs = ["--generator", str(base.path), "--reward", str(reward), "--device", "cpu"]
    out = tmp_path / "by_command"
    done = CliRunner().invoke(app, ["ledger", verb, str(first), *inputs, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"ledger rescore: done, {out}" in done.output and re.search(r"agreement +0\n", done.output)
    assert read_pairs(out, base).pairs
