"""Real steps killed in the middle: the same command again ends in the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a corpus and a reward are made first

REWARD = (
    "reward.ladders.world=40", "reward.ladders.footage=40", "reward.ladders.generated=40",
    "reward.ladders.reconstructed=10", "reward.ladders.few_steps=4", "reward.training.steps=300",
    "reward.training.checkpoint_every=20",
    "reward.card.contents_per_type=1", "reward.card.attacks=4", "reward.card.generator_attacks=4",
    "reward.gate.srcc_world=-1", "reward.gate.srcc_all=-1", "reward.gate.srcc_heldout_types=-1",
    "reward.gate.srcc_footage=-1", "reward.gate.adjacent_ordered=0", "reward.gate.two_apart_ordered=0",
    "reward.gate.reference_above=0", "reward.gate.attacks=0", "reward.gate.stillness_gain=100",
    "reward.gate.judge_low=-1",
)  # fmt: skip
ALIGNMENT = (
    "alignment.iterations=6", "alignment.prompts_per_iteration=3", "alignment.num_generations=3",
    "alignment.inner_updates=2",
    "alignment.reference_sync_every=5", "alignment.refresh_reward_every=1", "alignment.noise_gap=0",
    "alignment.checkpoint_every=2",
)  # fmt: skip


def command(step: str, settings: tuple[str, ...], *paths: str) -> list[str]:
    flags = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", f"components.{step}", "run", *flags, *paths]


def environment() -> dict[str, str]:
    # One thread everywhere: their number may change the last digits of samples, that of processes must not.
    repository = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": repository, "OMP_NUM_THREADS": "1"}


def finish(arguments: list[str], cwd: Path) -> None:
    done = subprocess.run(arguments, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]


def kill_at_checkpoint(arguments: list[str], cwd: Path, checkpoints: Path, number: int) -> None:
    """Start the command and kill -9 it once the checkpoint of ``number`` steps is there."""
    with open(cwd / "killed.log", "w") as log:
        process = subprocess.Popen(arguments, cwd=cwd, env=environment(), stdout=log, stderr=log)
        deadline = time.monotonic() + 600
        while not (checkpoints / f"step-{number:010d}").exists():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder with a small corpus, generator and reward, made by the real steps."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "models").symlink_to(repository / "models")
    finish(command("corpus", (), "--out", "corpus"), folder)
    small = ("generator.prompts=12", "generator.samples_per_prompt=4")
    finish(command("generator", small, "--corpus", "corpus", "--out", "generator"), folder)
    finish(
        command("reward", REWARD, "--corpus", "corpus", "--generator", "generator", "--out", "reward"), folder
    )
    return folder


def test_reward(made: Path) -> None:
    arguments = command(
        "reward", REWARD, "--corpus", "corpus", "--generator", "generator", "--out", "cut-reward"
    )
    kill_at_checkpoint(arguments, made, made / "cut-reward.partial" / ".checkpoints", 140)
    assert not (made / "cut-reward").exists()
    finish(arguments, made)
    weights = "model.safetensors"
    assert (made / "cut-reward" / weights).read_bytes() == (made / "reward" / weights).read_bytes()
    assert not list((made / "cut-reward").glob(".*"))  # neither checkpoints nor ladders are published
    # Two processes come to the same weights.
    module = command(
        "reward", REWARD, "--corpus", "corpus", "--generator", "generator", "--out", "two-reward"
    )[1:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *module]
    finish(torchrun, made)
    one, two = (load_file(made / name / weights) for name in ("reward", "two-reward"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-6, rtol=0), name


def test_alignment(made: Path) -> None:
    inputs = ("--corpus", "corpus", "--generator", "generator", "--reward", "reward")
    whole = command("alignment", ALIGNMENT, *inputs, "--out", "whole")
    finish(whole, made)
    cut = command("alignment", ALIGNMENT, *inputs, "--out", "cut")
    # The reward is refreshed after the fifth and the tenth update, in iterations 2 and 4: killed before the
    # first refresh and once more when its version judges.
    for checkpoint in (2, 4):
        kill_at_checkpoint(cut, made, made / "cut.partial" / ".checkpoints", checkpoint)
        assert not (made / "cut").exists()
    finish(cut, made)
    names = [path.relative_to(made / "whole") for path in (made / "whole").rglob("*") if path.is_file()]
    of_the_run = {"manifest.json", "timing.json"}
    compared = {name.as_posix() for name in names} - of_the_run
    assert {"lora/pytorch_lora_weights.safetensors", "ledger.parquet", "reward/versions.json"} <= compared
    for name in compared:
        assert (made / "cut" / name).read_bytes() == (made / "whole" / name).read_bytes(), name
    versions = json.loads((made / "whole" / "reward" / "versions.json").read_text())["versions"]
    assert [version["number"] for version in versions] == [0, 1, 2]
    assert [version["iteration"] for version in versions] == [None, 2, 4]
    # Two processes, and another batch in the sampler, draw the same clips and make the same pairs of them.
    module = command("alignment", ALIGNMENT, *inputs, "--out", "two")[1:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *module]
    finish(torchrun, made)

    def pairs(folder: str) -> list[tuple[object, ...]]:
        rows = pq.read_table(made / folder / "ledger.parquet").to_pylist()
        return [(r["iteration"], r["prompt_id"], r["candidate"], r["seed"], r["role"]) for r in rows]

    assert pairs("two") == pairs("whole")
