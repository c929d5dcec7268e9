"""`python -m pipelines plan`: where its params and GPUs come from, and what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.params import load_params
from components.planning.blueprints import blueprint_of, build
from components.planning.gpus import GPUS
from components.runtime.errors import InputError
from components.video.clip import ClipFormat
from pipelines.compiler.plan import PRODUCT, plan_profile
from pipelines.compiler.profile import load_profile, profile_names

REAL = [name for name in profile_names() if not name.startswith("miniature")]
SMALL = ["generator.sampling.batch=1", "alignment.prompts_per_iteration=4", "alignment.pairs_per_forward=1"]


def write(folder: Path, repository: Path, **keys: Any) -> str:
    base = {"generator": {"base": f"{repository}/models/miniature"}}
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({"description": "a test", "params": base} | keys))
    return str(file)


def test_params_and_gpus_are_the_profiles(tmp_path: Path, repository: Path) -> None:
    place = {"gpus": 2, "nodes": 2, "node_selector": {PRODUCT: "NVIDIA-L4"}}
    profile = write(tmp_path, repository, steps={"alignment": place})
    made = plan_profile(None, SMALL, profile)
    assert (made.gpu, made.gpus, made.capacity) == ("NVIDIA-L4", 4, 24e9)
    assert made.pipeline == "WanPipeline"
    other = plan_profile(
        None, [*SMALL, "alignment.num_generations=12"], profile, gpu="NVIDIA-H200", utilisation=0.8
    )
    assert other.gpu == "NVIDIA-H200"
    # Twice the candidates of the default, four GPUs for four prompts as before.
    assert other.phases["sampling"].flops == pytest.approx(2 * made.phases["sampling"].flops)


def test_a_profile_without_a_gpu_asks_for_one(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(
        InputError, match=r"node_selector has no nvidia.com/gpu.product; name the GPU with --gpu"
    ):
        plan_profile(None, SMALL, write(tmp_path, repository))


def test_the_command_prints_json_or_one_line_of_error(tmp_path: Path, repository: Path) -> None:
    profile = write(tmp_path, repository)

    def command(gpu: str) -> subprocess.CompletedProcess[str]:
        sets = [part for value in SMALL for part in ("--set", value)]
        return subprocess.run(
            [sys.executable, "-m", "pipelines", "plan", "--profile", profile, *sets, "--gpu", gpu, "--json"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)}, capture_output=True, text=True,
            timeout=280,
        )  # fmt: skip

    done, wrong = command("NVIDIA-A100-SXM4-80GB"), command("abacus")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["gpu"] == "NVIDIA-A100-SXM4-80GB" and made["latents"] == [8, 9, 12, 12]
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: GPU 'abacus': unknown; allowed: ")
    assert wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("name", REAL)
def test_profiles_of_released_models_are_consistent(name: str) -> None:
    profile = load_profile(name)
    params = load_params(None, profile.overrides())
    sampling, corpus = params.generator.sampling, params.corpus
    label = profile.place("alignment").node_selector[PRODUCT]
    assert label in {gpu.label for gpu in GPUS}
    assert profile.place("generator").node_selector[PRODUCT] == label
    # The reward is trained on clips of the size that it will score.
    assert (corpus.frames, corpus.height, corpus.width, corpus.fps) == (
        sampling.num_frames,
        sampling.height,
        sampling.width,
        sampling.fps,
    )
    assert sampling.precision == "half"
    assert params.alignment.prompts_per_iteration % profile.place("alignment").gpus == 0
    family = build(blueprint_of(params.generator.base), sampling.precision)
    family.latent_shape(ClipFormat(sampling.num_frames, sampling.height, sampling.width, sampling.fps))


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_each_profile_fits_the_gpu_it_is_sized_for(name: str) -> None:
    made = plan_profile(None, [], name)
    assert made.checkpointing is not None
    update = "update, checkpointed" if made.checkpointing else "update"
    assert all(made.fits(phase) for phase in ("sampling", "decoding", update))
