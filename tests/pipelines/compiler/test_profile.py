"""Profiles: what they may say, and where their params stand between the file and --set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from components.runtime.errors import InputError
from pipelines.compiler.compile import effective_params
from pipelines.compiler.profile import Placement, Profile, load_profile, profile_names
from pipelines.steps import FINISH, STEPS


def write(folder: Path, **keys: Any) -> str:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({"description": "a test"} | keys))
    return str(file)


@pytest.mark.parametrize("name", profile_names())
def test_the_profiles_that_come_with_the_package_place_every_task(name: str) -> None:
    assert set(load_profile(name).steps) == {FINISH, *(step.name for step in STEPS)}


def test_the_default_profile_suits_two_cores_and_eight_gigabytes() -> None:
    for place in load_profile("miniature-cpu").steps.values():
        assert parse_quantity(place.cpu) <= 2
        assert parse_quantity(place.memory) <= 6 * 2**30
        assert place.gpus == 0 and place.nodes == 1


def test_what_a_profile_leaves_out_has_defaults(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, steps={"reward": {"cpu": "8"}}))
    assert profile.place("reward") == Placement(cpu="8")
    assert profile.place("alignment") == Placement()
    assert {source.name for source in profile.secrets} == {"onlinevpo-s3", "onlinevpo-mlflow"}


def test_params_of_a_profile_stand_between_the_file_and_set(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("run: {seed: 1}\nalignment: {iterations: 1, beta: 1.0, lora_rank: 1}\n")
    profile = load_profile(
        write(tmp_path, params={"alignment": {"iterations": 2, "beta": 2e-05, "loss_reduction": "sum"}})
    )
    params = effective_params(file, ["alignment.iterations=3"], profile)
    assert (params.alignment.iterations, params.alignment.beta) == (3, 2e-05)
    assert (params.alignment.lora_rank, params.alignment.loss_reduction) == (1, "sum")
    assert params.run.seed == 1


def test_lists_and_seeds_in_a_profile_keep_their_values(tmp_path: Path) -> None:
    profile = load_profile(
        write(tmp_path, params={"run": {"seed": 2**62 + 1}, "corpus": {"sources": ["world"]}})
    )
    params = effective_params(None, [], profile)
    assert params.run.seed == 2**62 + 1
    assert list(params.corpus.sources) == ["world"]


def test_without_a_file_the_folder_s_own_params_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    profile = Profile(description="a test")
    assert effective_params(None, [], profile).run.seed == 0
    (tmp_path / "params.yaml").write_text("run: {seed: 5}\n")
    assert effective_params(None, [], profile).run.seed == 5


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"step": {}}, "unknown key"),
        ({"steps": {"rewards": {}}}, "steps.rewards: no such step; allowed: corpus, generator, reward"),
        ({"steps": {"reward": {"gpu": 1}}}, "steps.reward.gpu"),
        ({"steps": {"reward": {"gpus": -1}}}, "steps.reward.gpus = -1: must be greater than or equal to 0"),
        ({"steps": {"corpus": {"nodes": 2}}}, "steps.corpus.nodes = 2: must be 1"),
        ({"steps": {"evaluation": {"gpus": 4}}}, "steps.evaluation.gpus = 4: must be 0 or 1"),
        ({"steps": {"reward": {"memory": "4 GB"}}}, "steps.reward.memory = '4 GB'"),
        ({"steps": {"reward": {"memory": "0Gi"}}}, "steps.reward.memory = '0Gi': must be more than nothing"),
        ({"steps": {"reward": {"memory": "1Gi"}}}, "shared_memory 2Gi must be less than memory 1Gi"),
        ({"steps": {"reward": {"cpu": 2}}}, "steps.reward.cpu = 2"),
        ({"steps": {"reward": {"tolerations": [{"operator": "In"}]}}}, "operator = 'In'"),
        ({"queue": "Not A Name"}, "queue = 'Not A Name'"),
        ({"image_pull_policy": "Sometimes"}, "image_pull_policy = 'Sometimes'"),
        ({"description": "two\nlines"}, "description"),
        ({"secrets": [{"name": "s"}]}, "secrets.0.env: required"),
        ({"params": {"rewad": {"x": 1}}}, "params: "),
        ({"params": {"alignment": {"iterations": 0}}}, "alignment.iterations = 0: must be greater than"),
    ],
)
def test_a_wrong_profile_is_one_line_that_says_where(keys: dict[str, Any], part: str, tmp_path: Path) -> None:
    file = write(tmp_path, **keys)
    with pytest.raises(InputError) as caught:
        load_profile(file)
    assert part in str(caught.value)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"--profile huge: no such profile; allowed: .*miniature-cpu"):
        load_profile("huge")
