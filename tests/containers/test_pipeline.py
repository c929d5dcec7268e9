"""The whole pipeline in the real containers gives what the same steps give without containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.params import load_params
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.params import digest
from images.catalogue import ROOT
from pipelines.steps import STEPS

pytestmark = pytest.mark.containers

#: The whole method in the small: it learns nothing, so its gates are open.
TINY = (
    "corpus.world_clips.train=24", "corpus.world_clips.val=8", "corpus.world_clips.test=12",
    "corpus.footage_clips.train=24", "corpus.footage_clips.val=8", "corpus.footage_clips.test=12",
    "generator.prompts=6", "generator.samples_per_prompt=2",
    "reward.ladders.world=24", "reward.ladders.footage=24", "reward.ladders.generated=12",
    "reward.ladders.reconstructed=6", "reward.ladders.few_steps=4", "reward.training.steps=20",
    "reward.card.contents_per_type=1", "reward.card.attacks=4", "reward.card.generator_attacks=4",
    "reward.gate.srcc_world=-1", "reward.gate.srcc_all=-1", "reward.gate.srcc_heldout_types=-1",
    "reward.gate.srcc_footage=-1", "reward.gate.adjacent_ordered=0", "reward.gate.two_apart_ordered=0",
    "reward.gate.stillness_gain=1e9",
    "reward.gate.reference_above=0", "reward.gate.attacks=0", "reward.gate.judge_low=-1",
    "alignment.iterations=2", "alignment.prompts_per_iteration=3", "alignment.num_generations=3",
    "alignment.inner_updates=2",
    "alignment.min_gap=0", "alignment.noise_gap=0", "alignment.motion_floor=0",
    "evaluation.prompts=4", "evaluation.seeds=1", "evaluation.resamples=1000",
)  # fmt: skip


def run_local(root: Path, *arguments: str) -> Path:
    """`python -m pipelines run-local` as a person calls it; returns the folder of the run's artifacts."""
    ours = ("ONLINEVPO_", "MLFLOW_", "OMP_")  # what conftest.py sets for tests is not what `make run` sees
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-m", "pipelines", "run-local", "--root", str(root), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment)
    assert done.returncode == 0, f"run-local ended with {done.returncode}; its output is above"
    runs = {path.parent.parent.parent for path in root.glob("*/*/artifact/manifest.json")}
    assert len(runs) == 1
    return runs.pop()


def assert_same(name: str, made: Path, expected: Path) -> None:
    """Two artifacts of a step hold the same results, to the last bit; says which files differ."""
    here, there = (open_artifact(path, step=name, allow_refused=True) for path in (made, expected))
    if name == "registry":
        # Its version numbers count what its own registry has seen before.
        for figure in ("accepted", "rules_failed"):
            assert here.metrics()[figure] == there.metrics()[figure], figure
        return
    differing = sorted(
        file
        for file in here.manifest.files.keys() | there.manifest.files.keys()
        if here.manifest.files.get(file) != there.manifest.files.get(file)
        and not (file in here.manifest.files and here.manifest.files[file].about_run)
    )
    assert here.file("metrics.json").read_text() == there.file("metrics.json").read_text(), name
    assert not differing, f"{name}: {differing} differ between {made} and {expected}"
    assert here.manifest.inputs == there.manifest.inputs, name
    assert here.manifest.digest == there.manifest.digest, name


@pytest.mark.timeout(1800)
def test_a_tiny_pipeline_is_the_same_with_and_without_containers(
    images_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = [part for setting in TINY for part in ("--set", setting)]
    with capfd.disabled():
        contained = run_local(tmp_path / "docker", "--runner", "docker", "--images", str(images_file), *flags)
        bare = run_local(tmp_path / "host", "--runner", "host", *flags)
    for step in STEPS:
        assert_same(step.name, contained / step.name / "artifact", bare / step.name / "artifact")
    assert (contained / "report.html").is_file()
    versions = {
        json.loads((contained / step.name / "artifact" / "manifest.json").read_text())["code_version"]
        for step in STEPS
    }
    assert "unknown" not in versions


@pytest.fixture(scope="module")
def repro() -> Path:
    """artifacts/ as `make run` leaves it; made by `dvc repro` if it is not there, or of other params."""
    params = load_params(ROOT / "params.yaml")
    folder = ROOT / "artifacts"

    def is_current(name: str) -> bool:
        try:
            manifest = json.loads((folder / name / "manifest.json").read_text())
        except OSError:
            return False
        return bool(manifest["params_digest"] == digest(getattr(params, name)))

    if not all(is_current(step.name) for step in STEPS):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ONLINEVPO_")}
        environment.pop("OMP_NUM_THREADS", None)
        subprocess.run(["dvc", "repro"], cwd=ROOT, env=environment, check=True)
    return folder


@pytest.mark.timeout(7200)
def test_the_default_pipeline_in_containers_is_the_run_of_dvc_repro(
    images_file: Path, repro: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with capfd.disabled():
        made = run_local(tmp_path / "run", "--runner", "docker", "--images", str(images_file))
    for step in STEPS:
        assert_same(step.name, made / step.name / "artifact", repro / step.name)
