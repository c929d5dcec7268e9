"""A tiny alignment as one process and as the two nodes of a TrainJob, and what must be equal."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors.torch import load_file

from components.generator.params import SamplingParams
from components.reward.params import RewardParams
from components.reward.step import run as train_reward
from components.runtime.artifacts.publish import publish
from components.runtime.io import storage
from components.runtime.params import StepParams
from pipelines.steps import step
from pipelines.trainjob.manifest import Places, build
from pipelines.trainjob.settings import TrainJobSettings
from tests.alignment.tiny import save_tiny
from tests.pipelines.trainjob.conftest import Store
from tests.reward.conftest import write_inputs

ALIGNMENT = step("alignment")
NODES = 2
PARAMS = {
    "run": {"seed": 3, "device": "cpu"},
    "alignment": {
        "iterations": 8, "prompts_per_iteration": 3, "num_generations": 3, "inner_updates": 2,
        "reference_sync_every": 3,
        "checkpoint_every": 1, "min_gap": 0.0, "motion_floor": 0.0, "lora_rank": 2,
        "noise_gap": 0.0,  # so small a reward doubts every pair
    },
}  # fmt: skip
TINY_REWARD = {
    "run": {"device": "cpu"},
    "ladders": {
        "world": 12, "footage": 12, "generated": 12, "reconstructed": 4, "few_steps": 0, "composed": 0.2,
    },
    "network": {"members": 2, "hidden": 8, "embedding": 8, "bins": 2},
    "training": {"steps": 60, "batch": 6, "warmup": 2, "checkpoint_every": 60},
    "card": {"contents_per_type": 1, "attacks": 4},
    "gate": {
        "srcc_world": -1, "srcc_all": -1, "srcc_heldout_types": -1, "reference_above": 0, "attacks": 0,
        "judge_low": -2, "srcc_footage": -1, "adjacent_ordered": 0, "two_apart_ordered": 0,
        "stillness_gain": 1e9,
    },
}  # fmt: skip
WEIGHTS = "lora/pytorch_lora_weights.safetensors"


def make_inputs(folder: Path) -> None:
    """Write a small corpus, a tiny generator, a tiny trained reward, and params.json into `folder`."""
    corpus, samples = write_inputs(folder / "for_reward")
    corpus.rename(folder / "corpus")
    with publish(str(folder / "generator"), step="generator", params=StepParams(), inputs={}) as workspace:
        save_tiny(workspace.dir / "pipeline")
        sampling = SamplingParams(num_frames=5, height=32, width=32, fps=8.0, steps=2, guidance=1.0, batch=16)
        (workspace.dir / "generator.json").write_text(sampling.model_dump_json())
        workspace.write_metrics({})
    reward = RewardParams.model_validate(TINY_REWARD)
    train_reward(reward, corpus=folder / "corpus", generator=samples, out=folder / "reward")
    (folder / "params.json").write_text(json.dumps(PARAMS))


def run_one_process(folder: Path, repository: Path) -> Path:
    """Run it as one process without a network, on what `make_inputs` wrote; returns the artifact."""
    inputs = [part for name in ALIGNMENT.inputs for part in (f"--{name}", name)]
    command = [sys.executable, "-m", "components.alignment", "run", "--params", "params.json", *inputs]
    variables = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--out", "one"], cwd=folder, env=variables, check=True, timeout=600)
    return folder / "one"


def upload_inputs(folder: Path, store: Store) -> Places:
    """Put the same artifacts and params into S3."""
    inputs = {name: f"s3://{store.bucket}/inputs/{name}" for name in ALIGNMENT.inputs}
    for name, uri in inputs.items():
        storage.upload_dir(folder / name, uri)
    params = f"s3://{store.bucket}/job/params.json"
    storage.write_file(folder / "params.json", params)
    return Places(params, inputs, f"s3://{store.bucket}/job/artifact")


def train_job(places: Places, env: dict[str, str]) -> dict[str, Any]:
    """The TrainJob of it."""
    settings = TrainJobSettings(image="registry.example/onlinevpo-model@sha256:" + "0" * 64, nodes=NODES)
    return build("two", ALIGNMENT, "a run", places, settings, env)


def node_environments(job: dict[str, Any]) -> list[dict[str, str]]:
    """Each node's environment on this machine: the job's own, and what the trainer's torch plugin adds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    trainer = job["spec"]["trainer"]
    own = {entry["name"]: entry["value"] for entry in trainer["env"]}
    return [
        {
            **own,
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "ONLINEVPO_TRACKING": "off",
        }
        for rank in range(trainer["numNodes"])
    ]


def assert_same_weights(two: Path, one: Path) -> None:
    """To a hundredth of what training changed, all weights together: LoRA matrices B begin at 0.

    Not weight by weight: where a gradient is nothing but rounding, Adam makes a whole step of it, in a
    direction that depends on the processor.
    """
    ours, theirs = load_file(two / WEIGHTS), load_file(one / WEIGHTS)
    assert ours.keys() == theirs.keys()
    learned = math.hypot(*(float(w.norm()) for name, w in theirs.items() if "lora_B" in name))
    difference = math.hypot(*(float((ours[name] - theirs[name]).norm()) for name in ours))
    print(f"norm of the difference {difference:.3g}, of the change by training {learned:.3g}")
    assert learned > 1e-3
    assert difference <= learned / 100
    assert _pairs(two) == _pairs(one)


def _pairs(folder: Path) -> list[tuple[object, ...]]:
    rows = pq.read_table(folder / "ledger.parquet").to_pylist()
    return [(r["iteration"], r["prompt_id"], r["candidate"], r["seed"], r["role"]) for r in rows]
