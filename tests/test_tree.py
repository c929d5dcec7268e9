"""The composed tree of params and the commands that print it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.evaluation.params import EvaluationParams
from components.params import Params, json_schema, load_params, resolved, step_sections
from components.runtime.errors import InputError
from components.runtime.params import known_sections, load_step_params, section_class


def test_every_step_with_params_is_in_the_tree() -> None:
    assert sorted(["run", *step_sections()]) == sorted(known_sections())


def test_every_param_is_described() -> None:
    bare = [
        f"{name}.{key}"
        for name, definition in json_schema()["$defs"].items()
        for key, value in definition.get("properties", {}).items()
        if not value.get("description")
    ]
    assert bare == []


def test_run_is_shared_by_every_section(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("run: {seed: 5, device: cpu}\n")
    params = load_params(file, ["run.seed=6"])
    assert {getattr(params, name).run.seed for name in step_sections()} == {6}
    tree = resolved(params)
    assert tree["run"] == {"seed": 6, "device": "cpu"}
    assert all("run" not in tree[name] for name in step_sections())


def test_the_printed_tree_reads_back_as_itself(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(resolved(Params())))
    assert load_params(file) == Params()


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("run.sed=1", "unknown key `run.sed`"),
        ("rewad.x=1", "did you mean `reward`"),
        ("corpus.run=1", "corpus.run: not allowed here"),
        ("corpus.no_such_key=1", "unknown key `corpus.no_such_key`"),
    ],
)
def test_errors_are_one_line(override: str, part: str) -> None:
    with pytest.raises(InputError) as caught:
        load_params(None, [override])
    assert part in str(caught.value)
    assert ";" not in str(caught.value).replace("; did", "").replace("; allowed", "").replace(
        "here; `run`", ""
    )


@pytest.mark.parametrize("step", step_sections())
@pytest.mark.parametrize("other", step_sections())
def test_every_step_finds_a_mistake_in_any_section(step: str, other: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(f"{other}: {{no_such_key: 1}}\n")
    with pytest.raises(InputError, match=rf"unknown key `{other}\.no_such_key`"):
        load_step_params(section_class(step), step, file)
    file.write_text(f"{other}: {{}}\nrun: {{seed: 3}}\n")
    assert load_step_params(section_class(step), step, file).run.seed == 3


def test_sections_are_found_by_their_names() -> None:
    for name in step_sections():
        assert section_class(name) is Params.model_fields[name].annotation


def test_make_run_is_the_console_command(repository: Path) -> None:
    """Which reads all params before the first stage: tests/pipelines/test_console.py."""
    recipe = (repository / "Makefile").read_text().partition("\nrun:")[2].splitlines()[1:]
    assert recipe[0].strip().endswith("$(BIN)/onlinevpo run")


def test_commands(repository: Path, tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "components", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(repository)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    schema = json.loads(command("schema").stdout)
    assert set(schema["properties"]) == {"run", *step_sections()}
    assert yaml.safe_load(command("params", "--set", "run.seed=3").stdout)["run"]["seed"] == 3
    wrong = command("params", "--set", "run.seed=-3")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: run.seed = -3: must be greater than or equal to 0")
    assert wrong.stderr.count("\n") == 1


def test_the_page_and_the_registry_go_by_one_gate_file(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("registry: {gate: mine.yaml}\n")
    tree = load_params(file)
    assert tree.evaluation.gate == tree.registry.gate == "mine.yaml"
    assert load_step_params(EvaluationParams, "evaluation", file).gate == "mine.yaml"
    file.write_text("registry: {gate: mine.yaml}\nevaluation: {gate: yours.yaml}\n")
    for load in (load_params, lambda file: load_step_params(EvaluationParams, "evaluation", file)):
        with pytest.raises(
            InputError, match=r"evaluation.gate = 'yours.yaml' and registry.gate = 'mine.yaml'"
        ):
            load(file)
    # What a container gets: its own section alone, with what was taken over in it.
    file.write_text(json.dumps({"evaluation": resolved(tree)["evaluation"]}))
    assert load_step_params(EvaluationParams, "evaluation", file).gate == "mine.yaml"


def test_the_thresholds_that_evaluation_once_held_are_refused_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    retired = {
        "margins: {motion_change: 0.3}": r"gate file.*registry\.gate",
        "confidence: 0.6": "95 % intervals",
    }
    for given, said in retired.items():
        file.write_text(f"evaluation: {{{given}}}\n")
        for load in (load_params, lambda file: load_step_params(EvaluationParams, "evaluation", file)):
            with pytest.raises(InputError, match=f"evaluation: .*{said}"):
                load(file)
