"""A base that processes hold together gives what a whole one gives, each of them holding its share only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from components.alignment.policy.sharding import UnevenInputJoin
from components.generator.families.wan import Experts
from components.generator.generator import Generator
from components.runtime.compute.distributed import Ranks
from tests.alignment.closeness import largest_difference, steady
from tests.alignment.policy.sharded_processes import FAMILIES, HALF, updated
from tests.alignment.tiny import ledger_rows, make_trainer


@pytest.fixture(scope="module")
def sharded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    out = tmp_path_factory.mktemp("sharded")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "-m", "tests.alignment.policy.sharded_processes", str(tiny_folder), str(out)],
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        cwd=repository, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def weights_of(name: str, folder: Path) -> dict[str, torch.Tensor]:
    weights = load_file(folder / "weights.safetensors")
    return {n.removeprefix(f"{name}/"): v for n, v in weights.items() if n.startswith(f"{name}/")}


def test_the_loop_ends_as_without_sharding(
    sharded: Path, new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    alone = steady(make_trainer(new_generator(), tmp_path))
    start = {name: value.clone() for name, value in alone.policy.tensors().items()}
    alone.run()
    # Three prompts for two processes: they differ in calls in every phase.
    names = ("iteration", "prompt_id", "candidate", "seed", "role", "verdict", "reference_version")
    mine, theirs = (
        [tuple(row[name] for name in names) for row in ledger_rows(folder)]
        for folder in (tmp_path, sharded / "loop")
    )
    assert mine == theirs
    worst, name = largest_difference(weights_of("loop", sharded), alone.policy.tensors(), start)
    assert worst <= 1e-3, name


@pytest.mark.parametrize("name", [*FAMILIES, HALF])
def test_every_family_updates_as_without_sharding(name: str, sharded: Path) -> None:
    policy, figures, drift, start = updated(name, Ranks())
    assert drift is not None
    told = json.loads((sharded / "figures.json").read_text())
    assert told[name] == pytest.approx({**figures, "drift": drift}, rel=1e-4, abs=1e-6)
    worst, tensor = largest_difference(weights_of(name, sharded), policy.tensors(), start)
    assert worst <= 1e-3, tensor


def test_each_process_holds_its_share(sharded: Path) -> None:
    held = [json.loads((sharded / f"held{rank}.json").read_text()) for rank in range(2)]
    for name, (local, whole) in held[0].items():
        assert local + held[1][name][0] == whole
        # Weights are cut along their first axis: where that is 1, as many a time in tiny models, the first
        # process has them.
        assert 0.5 * whole <= local < 0.8 * whole, name


def test_calls_outside_a_phase_are_refused() -> None:
    network = torch.nn.Linear(2, 2)
    UnevenInputJoin(network, Ranks(), SimpleNamespace(used="policy"))
    with pytest.raises(RuntimeError, match="called outside a phase"):
        network(torch.zeros(1, 2))


def test_an_expert_that_is_asked_along_changes_no_row() -> None:
    class Double(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(2.0))
            self.calls = 0

        def forward(self, hidden_states: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
            self.calls += 1
            return (self.factor * hidden_states,)

    experts = Experts(Double(), Double(), 800.0)
    clips, times = torch.randn(2, 1, 1, 2, 2), torch.tensor([900.0, 850.0])
    expected = experts(clips, times, clips)[0]
    assert experts.parts_for(times) == {"high"} and experts.low.calls == 0
    experts.asked = frozenset({"high", "low"})
    output = experts(clips, times, clips)[0]
    assert torch.equal(output, expected) and experts.low.calls == 1
    output.sum().backward()
    assert experts.low.factor.grad == 0.0 and experts.high.factor.grad != 0.0
