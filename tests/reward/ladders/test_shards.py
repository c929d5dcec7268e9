"""Shards: the same whoever builds them, whole or absent, little memory, no waiting for what nobody makes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from components.reward.distortions import REGISTRY
from components.reward.ladders import plan as plan_module
from components.reward.ladders.ladder import NAMES, TENSORS, Ladders
from components.reward.ladders.plan import ShardPlan
from components.reward.ladders.shards import ShardFolder
from components.reward.ladders.sources import Pool, SourceClips, StoredClips
from components.reward.params import LadderParams
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError, Interrupted
from components.video.clip import ClipFormat
from tests.reward.conftest import textured, world
from tests.runtime.compute.test_process_pool import alive

#: All types but four that cost little.
DEAR = tuple(name for name in REGISTRY if name not in ("blur", "fixed_noise", "freeze", "ghost"))


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> ShardPlan:
    monkeypatch.setattr(plan_module, "SHARD", 6)
    pools = (
        Pool("world", SourceClips(world(5), [f"w{i}" for i in range(5)]), 12, True),
        Pool("generated", SourceClips(textured(4), [f"g{i}" for i in range(4)]), 8, False),
    )
    return ShardPlan(pools, LadderParams(clips_per_ladder=3, composed=0.0, heldout_types=DEAR), seed=3)


def same(a: Ladders, b: Ladders) -> bool:
    tensors = all(
        torch.equal(torch.nan_to_num(getattr(a, n)), torch.nan_to_num(getattr(b, n))) for n in TENSORS
    )
    return tensors and all(getattr(a, name) == getattr(b, name) for name in NAMES)


def test_every_planned_ladder_is_in_one_shard(plan: ShardPlan) -> None:
    assert len(plan) == 20 and plan.shards == 4
    numbers = [sorted(n for i in range(4) for n in plan.members(i)[pool]) for pool in range(2)]
    assert numbers == [list(range(12)), list(range(8))]
    assert sum(1 for i in range(4) if all(plan.members(i))) >= 3  # mixed, not one source after the other


def test_contents_take_turns(plan: ShardPlan) -> None:
    contents = [name.split("#")[0] for i in range(4) for name in plan.build(i).contents]
    assert all(contents.count(f"g{i}") == 2 for i in range(4))
    assert all(contents.count(f"w{i}") in (2, 3) for i in range(5))


def test_a_shard_is_read_back_as_it_was_built_and_not_built_again(plan: ShardPlan, tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, plan)
    first = folder[2]
    assert same(first, plan.build(2)) and len(first) == 6
    stamp = folder.path(2).stat().st_mtime_ns
    assert same(ShardFolder(tmp_path, plan)[2], first) and folder.path(2).stat().st_mtime_ns == stamp
    assert folder[3].frames.numel() == 0 and len(folder[3]) == 2
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000002.safetensors", "000003.safetensors"]


def test_the_pictures_are_kept_where_they_are_wanted(plan: ShardPlan) -> None:
    full, bare = ShardPlan(plan.pools, plan.params, plan.seed, pixels=True).build(0), plan.build(0)
    assert full.frames.shape == (6, 3, 5, 3, 32, 32) and same(full.without_frames(), bare)


def test_labels_stand_on_pristine_clips_alone(plan: ShardPlan) -> None:
    built = plan.build(0)
    known = ~built.labels.isnan().any(1)
    assert known.tolist() == [source == "world" for source in built.sources]


def test_two_that_build_the_same_shards_get_the_same(plan: ShardPlan, tmp_path: Path) -> None:
    single = ShardFolder(tmp_path / "a", plan)
    with single.workers(0):
        alone = [single[i] for i in range(4)]
    helped = ShardFolder(tmp_path / "b", plan)
    order: list[int] = []
    thread = threading.Thread(target=lambda: order.extend(i for i in reversed(range(4)) if helped[i]))
    thread.start()
    together = [helped[i] for i in range(4)]
    thread.join()
    assert order == [3, 2, 1, 0] and all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_a_process_of_many_threads_builds_what_a_worker_builds(
    plan: ShardPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums over a shard's frames differ in their last digits with the number of threads that share them."""
    threads: list[int] = []
    true = plan_module.build

    def build(*given: Any, **more: Any) -> Ladders:
        threads.append(torch.get_num_threads())
        return true(*given, **more)

    monkeypatch.setattr(plan_module, "build", build)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        ShardFolder(tmp_path, plan)[0]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert threads and set(threads) == {1}


def test_a_damaged_shard_is_named(plan: ShardPlan, tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, plan)
    folder[0]
    path = folder.path(0)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"000000\.safetensors: not a whole shard"):
        folder[0]


def test_who_does_not_build_waits_until_told_to_stop(plan: ShardPlan, tmp_path: Path) -> None:
    stop = StopSignal()
    waiting = ShardFolder(tmp_path, plan, stop, builds=False)
    threading.Timer(0.3, lambda: setattr(stop, "requested", True)).start()
    with pytest.raises(Interrupted):
        waiting[0]
    assert waiting.waited > 0.2
    ShardFolder(tmp_path, plan)[0]
    assert len(ShardFolder(tmp_path, plan, StopSignal(), builds=False)[0]) == 6


WORKERS = """
import sys, time
from pathlib import Path
from components.reward.ladders.sources import Pool, SourceClips
from components.reward.params import LadderParams
from components.reward.ladders.plan import ShardPlan
from components.reward.ladders.shards import ShardFolder
from tests.reward.conftest import textured
from components.reward.distortions import REGISTRY

DEAR = tuple(name for name in REGISTRY if name not in ("blur", "fixed_noise", "freeze", "ghost"))

def main():
    clips = SourceClips(textured(4), [f"g{i}" for i in range(4)])
    params = LadderParams(clips_per_ladder=2, composed=0, heldout_types=DEAR)
    folder = ShardFolder(Path(sys.argv[1]), ShardPlan((Pool("generated", clips, 800, False),), params, 0))
    with folder.workers(1):
        for shard in range(int(sys.argv[2])):
            folder[shard]
            print(shard, flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_killed_in_the_middle_nothing_half_made_stays_and_no_worker_lives_on(
    tmp_path: Path, repository: Path
) -> None:
    """Real processes: a run with a worker is killed, and another one goes on with what it left."""
    program, folder = tmp_path / "workers.py", tmp_path / "shards"
    program.write_text(WORKERS)
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(program), str(folder), "13"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "2":
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while any(alive(int(child)) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(int(child)) for child in children)
    left = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert len(left) >= 3
    done = subprocess.run(
        [sys.executable, str(program), str(folder), "4"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in left.items())
    alone = ShardPlan(
        (Pool("generated", SourceClips(textured(4), [f"g{i}" for i in range(4)]), 800, False),),
        LadderParams(clips_per_ladder=2, composed=0, heldout_types=DEAR),
        0,
    )
    assert same(ShardFolder(folder, alone)[1], alone.build(1))


def test_stored_clips_are_read_row_by_row_at_the_wanted_size(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    frames = torch.stack([world(3), textured(3)]).contiguous()  # (2, 3, T, 3, 32, 32)
    save_file({"frames": frames}, tmp_path / "clips.safetensors")
    stored = StoredClips(tmp_path / "clips.safetensors", "frames", [5, 0, 3], ClipFormat(5, 32, 32, 8.0))
    flat = frames.flatten(0, 1)
    assert len(stored) == 3 and torch.equal(stored[:], flat[[5, 0, 3]])
    assert torch.equal(stored[[2, 0]], flat[[3, 5]]) and torch.equal(stored[torch.tensor([1])], flat[[0]])
    assert stored[[]].shape == (0, 5, 3, 32, 32)
    small = StoredClips(tmp_path / "clips.safetensors", "frames", [0], ClipFormat(3, 16, 16, 8.0))[:]
    assert small.shape == (1, 3, 3, 16, 16)
    assert abs(float(small.float().mean()) - float(flat[0, :3].float().mean())) < 1.0


def test_a_plan_is_small_to_send(tmp_path: Path) -> None:
    import pickle

    clips = StoredClips(tmp_path / "none", "frames", range(1000), ClipFormat(5, 32, 32, 8.0))
    plan = ShardPlan(
        (Pool("world", SourceClips(clips, [str(i) for i in range(1000)]), 10_000, True),), LadderParams(), 0
    )
    assert len(pickle.dumps(plan)) < 40_000
    assert (
        json.loads(json.dumps(plan.params.model_dump(mode="json")))["clips_per_ladder"]
        == plan.params.clips_per_ladder
    )
