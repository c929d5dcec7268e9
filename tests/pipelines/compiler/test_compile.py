"""The compiled pipeline: golden files, equal bytes, what the server's cache sees, where tasks are placed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from kfp import components, local
from kfp.compiler import Compiler
from kfp.local import docker_task_handler
from kfp.local.config import LocalExecutionConfig

from components.params import Params, load_params, resolved
from components.runtime.errors import GateRefused, InputError
from pipelines.compiler.compile import HEADER, as_text, compile_to, documents_of
from pipelines.compiler.dag import pipeline
from pipelines.compiler.image_digests import Images
from pipelines.compiler.profile import Placement, Profile, load_profile, profile_names
from pipelines.container import entrypoint as shim
from pipelines.exit_handler import report as finish
from pipelines.steps import FINISH, PIPELINE_INPUTS, STEPS
from pipelines.trainjob.__main__ import app as trainjob_app
from pipelines.yaml_files import dump
from tests.pipelines.compiler.documents import PLAIN, Documents, executors, tasks


def cache_keys(documents: Documents) -> dict[str, str]:
    """What the server compares before it reuses a task's result, of each task that may be reused.

    Written after what the server does: image, command and arguments, input values, where input artifacts come
    from (their names follow from the producer's own key), names and types of the outputs.
    """
    defaults = {
        f"pipelinechannel--{name}": given["defaultValue"]
        for name, given in documents[0]["root"]["inputDefinitions"]["parameters"].items()
    }
    keys: dict[str, str] = {}
    for name, task in sorted(
        tasks(documents).items(), key=lambda item: len(item[1].get("dependentTasks", []))
    ):
        component = documents[0]["components"][task["componentRef"]["name"]]
        container = executors(documents)[component["executorLabel"]]
        given = task["inputs"].get("parameters", {})
        artifacts = task["inputs"].get("artifacts", {})
        if not task["cachingOptions"].get("enableCache"):
            continue
        keys[name] = json.dumps(
            [
                container["image"],
                container["command"] + container["args"],
                {k: defaults[v["componentInputParameter"]] for k, v in sorted(given.items())},
                {k: keys[v["taskOutputArtifact"]["producerTask"]] for k, v in sorted(artifacts.items())},
                component["outputDefinitions"],
            ]
        )
    return keys


def changed(before: Documents, after: Documents) -> set[str]:
    old, new = cache_keys(before), cache_keys(after)
    assert old.keys() == new.keys()
    return {name for name in old if old[name] != new[name]}


@pytest.fixture(scope="module")
def defaults(images: Images) -> Documents:
    """The default params compiled for a profile that says nothing."""
    return documents_of(resolved(Params()), PLAIN, images)


@pytest.mark.parametrize("name", [name for name in profile_names() if name.startswith("miniature")])
def test_golden(name: str, sections: dict[str, Any], images: Images, golden: Path) -> None:
    """ONLINEVPO_GOLDEN=write makes the files anew; look at the difference before committing it."""
    text = dump(documents_of(sections, load_profile(name), images))
    file = golden / f"{name}.yaml"
    if os.environ.get("ONLINEVPO_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text(), f"{file} differs; ONLINEVPO_GOLDEN=write pytest {Path(__file__).name}"


def test_the_same_bytes_whatever_the_hash_seed(repository: Path, images_file: Path, tmp_path: Path) -> None:
    texts = set()
    for seed in ("0", "1", "4242"):
        file = tmp_path / f"{seed}.yaml"
        command = [sys.executable, "-m", "pipelines", "compile", "--images", str(images_file)]
        command += ["--profile", "miniature-2-nodes", "--set", "run.seed=7", "-o", str(file)]
        environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONHASHSEED": seed}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, done.stdout.strip()) == (0, str(file)), done.stderr
        texts.add(file.read_text())
    assert len(texts) == 1
    comments = [line for line in texts.pop().splitlines() if line.lstrip().startswith("#")]
    assert len(comments) == 1 and "python -m pipelines compile" in comments[0]


def test_compiling_twice_in_one_process_gives_the_same_text(images: Images, defaults: Documents) -> None:
    assert as_text(documents_of(resolved(Params()), PLAIN, images)) == as_text(defaults)


def test_it_is_what_kubeflow_s_own_compiler_writes(
    sections: dict[str, Any], images: Images, compiled_plain: Documents, tmp_path: Path
) -> None:
    file = tmp_path / "pipeline.yaml"
    Compiler().compile(pipeline(sections, PLAIN, images), str(file))
    assert list(yaml.safe_load_all(file.read_text())) == compiled_plain


def test_kubeflow_reads_it_back_as_a_pipeline(compiled_plain: Documents) -> None:
    loaded = components.load_component_from_text(dump(compiled_plain))
    assert set(loaded.component_spec.inputs) == set(PIPELINE_INPUTS)
    assert {spec.type for spec in loaded.component_spec.inputs.values()} == {"String"}


def test_params_arrive_byte_for_byte(images: Images) -> None:
    params = load_params(None, [f"run.seed={2**62 + 1}"])
    inputs = documents_of(resolved(params), PLAIN, images)[0]["root"]["inputDefinitions"]["parameters"]
    assert json.loads(inputs["run_params"]["defaultValue"]) == {"seed": 2**62 + 1, "device": "auto"}
    for name, section in PIPELINE_INPUTS.items():
        assert json.loads(inputs[name]["defaultValue"]) == resolved(params)[section]
        assert inputs[name]["parameterType"] == "STRING"


def test_each_task_gets_the_shared_params_its_own_and_the_artifacts_of_the_table(
    compiled_plain: Documents,
) -> None:
    found = tasks(compiled_plain)
    assert set(found) == {FINISH, *(step.name for step in STEPS)}
    for step in STEPS:
        given = found[step.name]["inputs"]
        assert {k: v["componentInputParameter"] for k, v in given["parameters"].items()} == {
            "run_params": "pipelinechannel--run_params",
            "step_params": f"pipelinechannel--{step.name}_params",
        }
        sources = {k: v["taskOutputArtifact"] for k, v in given.get("artifacts", {}).items()}
        assert sources == {
            name: {"producerTask": name, "outputArtifactKey": "artifact"} for name in step.inputs
        }
        assert set(found[step.name].get("dependentTasks", [])) == set(step.inputs)


@pytest.mark.parametrize("several", [False, True])
def test_the_commands_are_those_that_the_images_understand(
    several: bool, sections: dict[str, Any], images: Images
) -> None:
    profile = PLAIN.model_copy(update={"steps": {"alignment": Placement(gpus=8, nodes=2 if several else 1)}})
    apps = {
        "pipelines.container.entrypoint": shim.app,
        "pipelines.exit_handler.report": finish.app,
        "pipelines.trainjob": trainjob_app,
    }
    for label, container in executors(documents_of(sections, profile, images)).items():
        assert container["command"] == ["python", "-m"]
        module, *arguments = container["args"]
        given = typer.main.get_command(apps[module]).make_context(module, arguments).params
        assert given["executor_input"] == "{{$}}"
        name = label.removeprefix("exec-")
        assert given.get("name", name) == name
        assert (module == "pipelines.trainjob") is (several and name == "alignment")
        if module == "pipelines.container.entrypoint":
            assert given["processes"] == (8 if name == "alignment" else 1)


def test_changing_one_step_s_params_leaves_the_others_cached(images: Images, defaults: Documents) -> None:
    before, after = (
        defaults,
        documents_of(resolved(load_params(None, ["evaluation.prompts=8"])), PLAIN, images),
    )
    assert changed(before, after) == {"evaluation"}
    assert executors(before) == executors(after)
    assert before[0]["components"] == after[0]["components"]


def test_the_seed_reaches_every_step(images: Images, defaults: Documents) -> None:
    after = documents_of(resolved(load_params(None, ["run.seed=1"])), PLAIN, images)
    assert changed(defaults, after) == set(cache_keys(defaults))


def test_a_new_image_reruns_its_steps_and_what_follows(
    sections: dict[str, Any], images: Images, compiled_plain: Documents
) -> None:
    other = images.model_copy(update={"evaluation": images.evaluation.replace("c", "e")})
    assert changed(compiled_plain, documents_of(sections, PLAIN, other)) == {"evaluation"}
    other = images.model_copy(update={"model": images.model.replace("b" * 64, "f" * 64)})
    rerun = changed(compiled_plain, documents_of(sections, PLAIN, other))
    assert rerun == set(cache_keys(compiled_plain)) - {"corpus"}


def test_placement_alone_reruns_nothing(
    sections: dict[str, Any], images: Images, compiled_plain: Documents
) -> None:
    place = Placement(cpu="8", memory="64Gi", gpus=1, node_selector={"a": "b"}, timeout_minutes=7, retries=9)
    profile = Profile(description="larger", queue="q", steps={step.name: place for step in STEPS})
    assert changed(compiled_plain, documents_of(sections, profile, images)) == set()


def test_neither_the_exit_handler_nor_the_registry_comes_from_the_cache(compiled_plain: Documents) -> None:
    """The registry compares with whoever is champion now, which Kubeflow's cache cannot see."""
    found = tasks(compiled_plain)
    cached = {name for name, task in found.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {"corpus", "generator", "reward", "alignment", "evaluation"}


def test_the_exit_handler_hears_how_all_steps_ended(compiled_plain: Documents) -> None:
    root = compiled_plain[0]["root"]["dag"]["tasks"]
    assert set(root) == {"exit-handler-1", FINISH}
    assert root[FINISH]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert root[FINISH]["inputs"]["parameters"] == {
        "status": {"taskFinalStatus": {"producerTask": "exit-handler-1"}}
    }


@pytest.mark.filterwarnings("ignore:Task ")
def test_kubeflow_s_local_runner_runs_the_exit_handler_after_a_failure(
    sections: dict[str, Any], images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    said: list[str] = []

    def container(command: list[str], **_: Any) -> int:
        given = json.loads(command[command.index("--executor-input") + 1])
        module = command[2]
        ran.append(command[3] if module == "pipelines.container.entrypoint" else module)
        if module == "pipelines.exit_handler.report":
            said.append(given["inputs"]["parameterValues"]["status"]["state"])
        else:
            assert json.loads(given["inputs"]["parameterValues"]["run_params"]) == {"seed": 2**53 + 1}
        made = {name: {"artifacts": v["artifacts"]} for name, v in given["outputs"]["artifacts"].items()}
        output = Path(command[command.index("--executor-output") + 1])
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"artifacts": made}))
        return 3 if command[3] == "reward" else 0

    class NoEngine:
        def info(self) -> dict[str, Any]:
            return {}

        def close(self) -> None:
            pass

    monkeypatch.setattr("docker.from_env", NoEngine)
    monkeypatch.setattr(
        docker_task_handler, "run_docker_container", lambda client, image, command, **more: container(command)
    )
    monkeypatch.setattr(LocalExecutionConfig, "instance", None)
    impatient = Placement(retries=1, retry_delay_seconds=0)
    profile = PLAIN.model_copy(update={"steps": {"reward": impatient}})
    local.init(runner=local.DockerRunner(), pipeline_root=str(tmp_path), raise_on_error=False)
    pipeline(sections, profile, images)()
    assert ran == ["corpus", "generator", "reward", "reward", "pipelines.exit_handler.report"]
    assert said == ["FAILED"]


def test_a_secret_among_the_params_is_refused_before_anything_is_written(
    images_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "pipeline.yaml"
    # put together here, so that no scanner takes this file for a leak
    key = "AKIA" + "ABCDEFGHIJKLMNOP"
    with pytest.raises(GateRefused, match="1 fault"):
        compile_to(output, None, [f"corpus.footage=s3://{key}/clips"], "miniature-cpu", images_file)
    assert not output.exists()
    error = capsys.readouterr().err
    assert (
        "root.inputDefinitions.parameters.corpus_params.defaultValue: looks like an AWS access key" in error
    )
    assert key not in error


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"overrides": ["run.sed=1"]}, "unknown key `run.sed`"),
        ({"profile": "none"}, "--profile none: no such profile"),
        ({"images": Path("none.yaml")}, "images file none.yaml: No such file"),
        ({"params_file": "none.yaml"}, "none.yaml: No such file"),
        ({"output": Path("/proc/none/pipeline.yaml")}, "/proc/none/pipeline.yaml: cannot be written"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(
    change: dict[str, Any], part: str, images_file: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "output": tmp_path / "out" / "pipeline.yaml",
        "params_file": None,
        "overrides": [],
        "profile": "miniature-cpu",
        "images": images_file,
    }
    with pytest.raises(InputError) as caught:
        compile_to(**(given | change))
    assert part in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_existing_file_stays_whole_when_the_new_one_cannot_be_made(
    images_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "pipeline.yaml"
    output.write_text(f"{HEADER}before")
    with pytest.raises(InputError):
        compile_to(output, None, ["alignment.iterations=0"], "miniature-cpu", images_file)
    assert output.read_text() == f"{HEADER}before"
    compile_to(output, None, [], "miniature-cpu", images_file)
    assert len(list(yaml.safe_load_all(output.read_text()))) == 2
    assert [path.name for path in tmp_path.iterdir() if path != images_file] == ["pipeline.yaml"]
