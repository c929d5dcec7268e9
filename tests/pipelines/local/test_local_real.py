"""The real steps, at toy sizes, by Kubeflow's local runner: the same results as by their own commands."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from components.corpus.prompts import world_prompts
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.tracking import step_run as tracking
from pipelines.steps import STEPS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Kills the step, as the kernel does when memory runs out, as soon as it has a checkpoint; once.
KILLER = """
import os, pathlib, sys, threading, time

def kill(checkpoints, marker):
    while not list(checkpoints.glob("step-*/state.json")):
        time.sleep(0.005)
    marker.touch()
    os.kill(os.getpid(), 9)

words = sys.orig_argv
marker = pathlib.Path(os.environ["MARKER"]) if "MARKER" in os.environ else None
if marker and "components.alignment" in words and not marker.exists():
    checkpoints = pathlib.Path(words[words.index("--out") + 1] + ".partial", ".checkpoints")
    threading.Thread(target=kill, args=(checkpoints, marker), daemon=True).start()
"""


def params(folder: Path) -> Path:
    """Params under which every step does its work, in seconds."""
    (folder / "prompts.txt").write_text("\n".join(p.text for p in world_prompts()[::24]))
    lenient = dict.fromkeys(
        ("srcc_world", "srcc_footage", "srcc_all", "srcc_heldout_types", "judge_low"), -1.0
    )
    lenient |= {"adjacent_ordered": 0.0, "two_apart_ordered": 0.0, "stillness_gain": 1e9}
    tree = {
        "corpus": {
            "sources": ["world"],
            "world_clips": {"train": 12, "val": 4, "test": 4},
            "prompts": str(folder / "prompts.txt"),
        },
        "generator": {"prompts": 4, "samples_per_prompt": 2, "sampling": {"steps": 2}},
        "reward": {
            "ladders": {"world": 8, "footage": 0, "generated": 8, "reconstructed": 0, "few_steps": 2},
            "training": {"steps": 4, "checkpoint_every": 2},
            "card": {"contents_per_type": 1, "attacks": 4, "generator_attacks": 4},
            "gate": {**lenient, "reference_above": 0.0, "attacks": 0.0},
        },
        "alignment": {
            "iterations": 3,
            "prompts_per_iteration": 2,
            "num_generations": 2,
            "inner_updates": 1,
            "checkpoint_every": 1,
            # So small a reward doubts every pair, and a run without pairs is refused.
            "min_gap": 0.0,
            "noise_gap": 0.0,
            "motion_floor": 0.0,
        },
        "evaluation": {"prompts": 2, "seeds": 1, "resamples": 1000, "report_pairs": 1, "flow_pairs": 1},
    }
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def results(artifact: Artifact) -> dict[str, str]:
    """What a step came to: digests of its files, of weights those of the tensors.

    Films are left out, and so is what else stands in a file of weights: x264 and safetensors do not always
    write the same bytes for the same frames and tensors.
    """
    found = {}
    for name, entry in artifact.manifest.files.items():
        if name.endswith(".safetensors"):
            for tensor, values in load_file(artifact.path / name).items():
                found[f"{name}:{tensor}"] = hashlib.sha256(values.numpy().tobytes()).hexdigest()
        elif not entry.about_run and not name.endswith(".mp4"):
            found[name] = entry.sha256
    return found


def run(repository: Path, words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("ONLINEVPO_TRACKING", "MLFLOW_TRACKING_URI")}
    path = os.pathsep.join(filter(None, (more.pop("PYTHONPATH", ""), str(repository))))
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=repository, env={**kept, **more, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=1500,
    )  # fmt: skip


def test_killed_once_and_equal_to_the_steps_own_commands(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, root, own = params(tmp_path), tmp_path / "root", tmp_path / "own"
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(KILLER)
    words = ["pipelines", "run-local", "--runner", "host", "--params", str(file), "--root", str(root)]
    done = run(repository, words, MARKER=str(tmp_path / "killed"), PYTHONPATH=str(hook))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "killed").exists() and "done, 2 attempts" in done.stdout
    folder = max(root.glob("onlinevpo-*"))
    for one in STEPS[:-1]:  # the registry's answer depends on who is champion
        inputs = [word for name in one.inputs for word in (f"--{name}", str(folder / name / "artifact"))]
        command = [f"components.{one.name}", "run", "--params", str(file), *inputs]
        direct = run(repository, [*command, "--out", str(own / one.name)], ONLINEVPO_TRACKING="off")
        assert direct.returncode == 0, direct.stderr[-3000:]
        ours = open_artifact(folder / one.name / "artifact", step=one.name)
        theirs = open_artifact(own / one.name, step=one.name)
        assert ours.manifest.inputs == theirs.manifest.inputs
        assert results(ours) == results(theirs), one.name
    page = (folder / "report.html").read_text()
    assert "Done: every step ended well" in page and "the candidate was not promoted" in page
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    client = tracking.connect().MlflowClient()
    experiment = client.get_experiment_by_name("onlinevpo").experiment_id
    found = {r.info.run_name: r.info.status for r in client.search_runs([experiment])}
    assert found == dict.fromkeys([one.name for one in STEPS] + [folder.name], "FINISHED")


def test_the_real_gate_refuses(tmp_path: Path, repository: Path) -> None:
    root = tmp_path / "root"
    words = [
        "pipelines",
        "run-local",
        "--runner",
        "host",
        "--params",
        str(params(tmp_path)),
        "--root",
        str(root),
    ]
    done = run(repository, [*words, "--set", "reward.gate.srcc_world=1"])
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("refused: step reward: reward gate: ") and "srcc_world" in last
    folder = max(root.glob("onlinevpo-*"))
    assert not (folder / "alignment").exists()
    page = (folder / "report.html").read_text()
    assert "Refused by a quality gate: reward" in page and "srcc_world" in page
    assert page.count(">not reached<") == 3
