"""What lies in a store is part of the cache's key where `compile --contents` asked for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.runtime.errors import InputError
from pipelines.compiler.compile import compile_to
from tests.s3 import Store

PLACES = ["corpus.footage=s3://bucket/footage", "corpus.prompts=s3://bucket/prompts.txt"]


def commands(file: Path) -> dict[str, Any]:
    """Image, command and arguments of each task: what Kubeflow's cache compares beside the inputs."""
    document = next(iter(yaml.safe_load_all(file.read_text())))
    executors = document["deploymentSpec"]["executors"]
    return {name: one["container"] for name, one in executors.items()}


def test_objects_that_changed_change_the_command_of_the_steps_that_read_them_alone(
    store: Store, images_file: Path, tmp_path: Path
) -> None:
    store.put("footage/a.mp4", "one")
    store.put("prompts.txt", "a cat\n")
    store.put("gate.yaml", "{}\n")

    def compiled(*more: str, contents: bool = True) -> dict[str, Any]:
        file = tmp_path / "pipeline.yaml"
        compile_to(file, None, [*PLACES, *more], "miniature-cpu", images_file, contents)
        return commands(file)

    def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
        return {name for name in before if before[name] != after[name]}

    before = compiled()
    assert compiled() == before
    assert changed(before, compiled(contents=False)) == {"exec-corpus"}
    store.put("footage/a.mp4", "another")
    assert changed(before, compiled()) == {"exec-corpus"}
    gate = "registry.gate=s3://bucket/gate.yaml"
    with_gate = compiled(gate)
    store.put("gate.yaml", "available: [motion_smoothness]\n")
    assert changed(with_gate, compiled(gate)) == {"exec-registry", "exec-evaluation"}
    with pytest.raises(InputError, match=r"corpus\.prompts = s3://bucket/none\.txt: nothing there"):
        compiled("corpus.prompts=s3://bucket/none.txt")


def test_a_step_takes_the_argument(capsys: pytest.CaptureFixture[str]) -> None:
    from components.runtime.step import main
    from pipelines.container.entrypoint import app

    with pytest.raises(SystemExit) as ended:
        main(app, ["corpus", "--executor-input", "{", "--contents", "0" * 64])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "No such option" not in said and "executor" in said.lower()
