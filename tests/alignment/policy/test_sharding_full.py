"""All weights trained by processes that hold them together: the run of one process, shared out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from components.alignment.policy import FullPolicy, Policy
from components.alignment.policy.sharding import clip_gradients
from components.generator.generator import Generator
from components.runtime.artifacts.checkpoints import Checkpointer
from components.runtime.compute.distributed import Ranks
from tests.alignment.closeness import largest_difference, steady
from tests.alignment.policy.shared_full_processes import EMA, FULL, HALF, NETWORKS, halve, updated
from tests.alignment.policy.test_families import make
from tests.alignment.tiny import ledger_rows, make_trainer


@pytest.fixture(scope="module")
def shared(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    out = tmp_path_factory.mktemp("shared")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "-m", "tests.alignment.policy.shared_full_processes", str(tiny_folder), str(out)],
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        cwd=repository, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.fixture(scope="module")
def weights(shared: Path) -> dict[str, Tensor]:
    return load_file(shared / "w.safetensors")


def untrained(generator: Generator) -> dict[str, Tensor]:
    return FullPolicy(generator.family).tensors()


def assert_alike(
    policy: Policy, weights: dict[str, Tensor], of: str, start: dict[str, Tensor], share: float = 1e-3
) -> None:
    """The weights `of` a run are a policy's, up to this share of its update."""
    found = {name.removeprefix(f"{of}/"): v for name, v in weights.items() if name.startswith(f"{of}/")}
    worst, name = largest_difference(found, policy.tensors(), start)
    assert worst <= share, name


def test_the_loop_ends_as_in_one_process(
    shared: Path, weights: dict[str, Tensor], new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    alone = steady(make_trainer(new_generator(), tmp_path, FULL))
    alone.run()
    names = ("iteration", "prompt_id", "candidate", "seed", "role", "verdict", "reference_version")
    mine, theirs = (
        [tuple(row[name] for name in names) for row in ledger_rows(folder)]
        for folder in (tmp_path, shared / "loop")
    )
    assert mine == theirs
    # Three prompts for two processes: one has pairs twice as often. The reference was refreshed twice.
    assert_alike(alone.policy, weights, "loop", untrained(new_generator()))
    # Checkpoints are those of one process, to the names.
    one, two = (Checkpointer(folder).latest() for folder in (tmp_path, shared / "loop"))
    assert one is not None and two is not None
    assert {n: v.shape for n, v in one.tensors.items()} == {n: v.shape for n, v in two.tensors.items()}


def test_a_reference_that_follows_in_small_steps_does_so_in_shares(
    weights: dict[str, Tensor], new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    alone = steady(make_trainer(new_generator(), tmp_path, EMA))
    alone.run()
    assert_alike(alone.policy, weights, "ema", untrained(new_generator()))


def test_a_killed_run_ends_as_a_whole_one_to_the_bit(weights: dict[str, Tensor]) -> None:
    whole = {name.removeprefix("loop/"): value for name, value in weights.items() if name.startswith("loop/")}
    assert whole
    assert all(torch.equal(value, weights[f"cut/{name}"]) for name, value in whole.items())


def test_one_process_goes_on_with_what_two_left(
    shared: Path, weights: dict[str, Tensor], new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    shutil.copytree(shared / "left", tmp_path / "left")
    alone = steady(make_trainer(new_generator(), tmp_path / "left", FULL))
    assert alone.done == 2
    alone.run()
    assert_alike(alone.policy, weights, "loop", untrained(new_generator()))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_update_as_in_one_process(name: str, shared: Path, weights: dict[str, Tensor]) -> None:
    policy, figures, drift, start = updated(name, Ranks())
    told = json.loads((shared / "figures.json").read_text())[name]
    # In 16 bits a gradient's sum is rounded once more on its way to its share.
    rel, absolute, share = (2e-2, 1e-4, 5e-2) if name == HALF else (1e-4, 1e-6, 1e-3)
    assert told == pytest.approx({**figures, "drift": drift}, rel=rel, abs=absolute)
    assert_alike(policy, weights, name, start, share)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_published_is_that_of_one_process(
    name: str, shared: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    family = make("wan-2.1" if name == HALF else name)
    if name == HALF:
        halve(family)
    policy = FullPolicy(family)
    policy.restore({n.removeprefix(f"{name}/"): v for n, v in weights.items() if n.startswith(f"{name}/")})
    policy.save(tmp_path)
    mine, theirs = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path, shared / "saved" / name)
    )
    assert mine == theirs and len(mine) >= 2


def test_each_process_holds_and_steps_its_share(shared: Path) -> None:
    held = [json.loads((shared / f"held{rank}.json").read_text()) for rank in range(2)]
    for name, (local, whole) in held[0].items():
        assert local + held[1][name][0] == whole
        # Weights are cut along their first axis: where that is 1 the first process has them.
        assert 0.5 * whole <= local < 0.6 * whole, name


def test_gradients_are_clipped_by_the_norm_of_all_shares() -> None:
    """(3, 4) is whole; of (12, 84) this process has 12: the norm of all is 85.1."""

    class Two(Ranks):
        def all_gather_object(self, value: object) -> list[object]:  # type: ignore[override]
            return [value, 84.0**2]

    weights = {"whole": nn.Parameter(torch.zeros(2)), "cut": nn.Parameter(torch.zeros(1))}
    weights["whole"].grad, weights["cut"].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
    norm = clip_gradients(weights, {"cut"}, 1.0, Two(0, 2))
    assert norm == pytest.approx((3**2 + 4**2 + 12**2 + 84**2) ** 0.5)
    assert weights["cut"].grad.item() == pytest.approx(12 / norm, rel=1e-4)
    assert weights["whole"].grad.tolist() == pytest.approx([3 / norm, 4 / norm], rel=1e-4)
