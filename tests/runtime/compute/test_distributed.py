from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.runtime.compute.distributed import process_group


def test_two_processes(tmp_path: Path, repository: Path) -> None:
    program = Path(__file__).with_name("ranks_program.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(repository), "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == {
            "size": 2,
            "means": [[0.5] * 6, [5.0], [0.0, 2.0, 1.0, 3.0]],
            "gathered": [{"rank": 0}, {"rank": 1}],
            "broadcast": "from 0",
            "mine": [rank, rank + 2] + ([4] if rank == 0 else []),
            "stop": [False, True],
            "seen": True,
            # Each hears of a refusal when the refused artifact is there, not before.
            "refused": True,
            "published": True,
        }
    assert not (tmp_path / "artifact.partial").exists()


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    with process_group() as ranks:
        tensor = torch.tensor([1.0, 2.0])
        ranks.all_reduce_mean([tensor])
        ranks.barrier()
        assert tensor.tolist() == [1.0, 2.0]
        assert (ranks.is_main, ranks.size) == (True, 1)
        assert ranks.all_gather_object("x") == ["x"]
        assert ranks.broadcast_object("x") == "x"
        assert list(ranks.mine(3)) == [0, 1, 2]
    assert not torch.distributed.is_initialized()
