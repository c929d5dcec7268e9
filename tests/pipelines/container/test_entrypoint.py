"""One step inside a container: stand-ins for the steps, the real shim, the messages that Kubeflow passes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.publish import publish
from components.runtime.params import StepParams
from pipelines.container import entrypoint as shim
from pipelines.container.executor_io import ExecutorInput
from pipelines.container.supervise import Ended
from pipelines.steps import STEPS, step
from tests.pipelines.standins import FAULTS, LOG, attempts, install
from tests.s3 import Store

BIG = 2**63 - 1


@dataclass
class Task:
    """A task of the pipeline as a container sees it: its folder, its inputs, and the shim's command line."""

    root: Path
    overlay: Path
    name: str = "reward"
    own: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.root / "standins.log"

    @property
    def folder(self) -> Path:
        return self.root / "task"

    def given(self) -> dict[str, Any]:
        """The ExecutorInput message."""
        outputs = {"artifact": step(self.name).kind} | {
            name: shown.kind for name, shown in step(self.name).shown.items()
        }
        return {
            "inputs": {
                "parameterValues": {
                    "run_params": json.dumps({"seed": BIG}),
                    "step_params": json.dumps(self.own),
                },
                "artifacts": {
                    name: {"artifacts": [{"name": name, "uri": str(self.root / name)}]}
                    for name in step(self.name).inputs
                },
            },
            "outputs": {
                "artifacts": {
                    name: {
                        "artifacts": [
                            {
                                "name": name,
                                "type": {"schemaTitle": f"system.{kind}"},
                                "uri": str(self.folder / name),
                            }
                        ]
                    }
                    for name, kind in outputs.items()
                },
                "outputFile": str(self.folder / "executor_output.json"),
            },
        }

    def start(self, *more: str, fault: str = "") -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "pipelines.container.entrypoint", self.name]
        words += ["--executor-input", json.dumps(self.given()), *more]
        repository = Path(__file__).resolve().parents[3]
        environment = os.environ | self.environment | {
            "PYTHONPATH": f"{self.overlay}{os.pathsep}{repository}",
            FAULTS: json.dumps({self.name: fault}),
            LOG: str(self.log),
        }  # fmt: skip
        return subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *more: str, fault: str = "") -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(*more, fault=fault)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def said(self) -> dict[str, Any]:
        """The ExecutorOutput message."""
        found: dict[str, Any] = json.loads((self.folder / "executor_output.json").read_text())["artifacts"]
        return {name: entry["artifacts"][0] for name, entry in found.items()}

    def attempts(self) -> list[int]:
        return attempts(self.log, self.name)


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("standins"), [s.name for s in STEPS])


@pytest.fixture
def task(tmp_path: Path, overlay: Path) -> Task:
    for name in ("corpus", "generator"):
        with publish(tmp_path / name, step=name, params=StepParams()) as workspace:
            (workspace.dir / "result.txt").write_text(name)
            workspace.write_metrics({"links": 1.0})
    return Task(tmp_path, overlay)


def test_a_step_that_ends_well(task: Task) -> None:
    code, out, err = task.run("--run", "run-1")
    assert code == 0, err
    assert "reward: done" in out
    artifact = open_artifact(task.folder / "artifact", step="reward")
    assert artifact.manifest.params["run"]["seed"] == BIG
    assert set(artifact.manifest.inputs) == {"corpus", "generator"}
    said = task.said()
    assert set(said) == {"artifact", "metrics", "card"}
    assert said["artifact"]["uri"] == str(task.folder / "artifact")
    assert said["artifact"]["metadata"]["digest"] == artifact.manifest.digest
    assert said["artifact"]["metadata"]["params_digest"] == artifact.manifest.params_digest
    assert "refused" not in said["artifact"]["metadata"]
    assert said["metrics"]["metadata"] == artifact.metrics()
    assert said["metrics"]["type"] == {"schemaTitle": "system.Metrics"}
    assert (task.folder / "card").read_text() == "# card of reward\n"


def test_folders_that_the_launcher_made_do_no_harm(task: Task) -> None:
    for name in ("artifact", "metrics", "card"):
        (task.folder / name).mkdir(parents=True)
    code, _, err = task.run("--executor-output", str(task.folder / "said" / "elsewhere.json"))
    assert code == 0, err
    open_artifact(task.folder / "artifact", step="reward")
    assert (task.folder / "card").is_file()
    assert (task.folder / "said" / "elsewhere.json").is_file()
    assert not (task.folder / "executor_output.json").exists()


def test_placeholders_that_the_cluster_leaves_unfilled(task: Task) -> None:
    placeholders = ("--run", "{{$.pipeline_job_name}}", "--executor-output", "{{$.outputs.output_file}}")
    code, _, err = task.run(*placeholders)
    assert code == 0, err
    assert (task.folder / "executor_output.json").is_file()
    assert shim.pipeline_run("{{$.pipeline_job_name}}") is None


def test_the_pods_label_names_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shim.pipeline_run("local") == "local"
    monkeypatch.setenv("ONLINEVPO_RUN", "from-the-label")
    assert shim.pipeline_run("local") == "from-the-label"


def test_a_refusal_is_remembered(task: Task) -> None:
    task.own = {"gate": {"srcc_world": 0.99}}
    last = "refused: reward gate: srcc_world 0.950 < 0.990"
    code, _, err = task.run()
    assert (code, err.splitlines()[-1]) == (3, last)
    word = json.loads((task.folder / "reward.refused.json").read_text())
    assert word == {"code": 3, "reason": last.removeprefix("refused: ")}
    assert not (task.folder / "executor_output.json").exists()
    code, out, err = task.run()
    assert (code, out, err) == (3, "", f"{last}\n")
    assert task.attempts() == [0]  # the second attempt did not start the step


def test_a_refusal_outlives_the_container(task: Task, tmp_path: Path) -> None:
    task.environment = {"ONLINEVPO_CHECKPOINTS": str(tmp_path / "checkpoints"), "ONLINEVPO_RUN": "run-7"}
    task.own = {"gate": {"srcc_world": 0.99}}
    assert task.run()[0] == 3
    task.folder.rename(tmp_path / "lost with its node")
    assert task.run()[0] == 3
    assert task.attempts() == [0]


def test_where_word_is_left(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert shim.state_folder("run-7", tmp_path / "task" / "artifact") == str(tmp_path / "task")
    monkeypatch.setenv("ONLINEVPO_CHECKPOINTS", "s3://bucket/checkpoints/")
    state = shim.state_folder("run-7", tmp_path / "task" / "artifact")
    assert state == "s3://bucket/checkpoints/runs/run-7"
    assert shim.remembered_refusal(state, step("reward")) is None
    shim.remember_refusal(state, step("reward"), "too bad")
    assert store.files("checkpoints/runs") == ["run-7/reward.refused.json"]
    assert shim.remembered_refusal(state, step("reward")) == "too bad"
    assert shim.remembered_refusal(state, step("alignment")) is None  # another step is another matter
    assert shim.remembered_refusal("s3://bucket/checkpoints/runs/run-8", step("reward")) is None
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert shim.remembered_refusal(state, step("reward")) is None
    assert capsys.readouterr().err.startswith(
        f"warning: {state}/reward.refused.json cannot be read, the step runs"
    )


def test_refusal_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    shim.remember_refusal(str(tmp_path / "file" / "runs"), step("reward"), "too bad")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("warning: ") and "a retry will run the step again" in lines[0]
    assert lines[-1] == "refused: too bad"  # the reason stays on the last line


def test_a_step_that_says_nothing_and_makes_nothing(task: Task) -> None:
    code, _, err = task.run(fault="silent")
    assert code == 1
    assert err.startswith("error: step reward ended with 0 but its result cannot be used: ")
    assert err.count("\n") == 1
    assert not (task.folder / "executor_output.json").exists()


@pytest.mark.parametrize("harm", ["alter", "remove", "other step"])
def test_an_artifact_that_is_not_whole(task: Task, harm: str) -> None:
    assert task.run()[0] == 0
    given = ExecutorInput.parse(json.dumps(task.given()))
    (task.folder / "executor_output.json").unlink()
    if harm == "alter":
        (task.folder / "artifact" / "result.txt").write_text("x" * 64)
    elif harm == "remove":
        (task.folder / "artifact" / "card.md").unlink()
    with pytest.raises(shim.OnlineVPOError, match="its result cannot be used") as caught:
        shim.deliver(step("alignment" if harm == "other step" else "reward"), given)
    assert caught.value.exit_code == 1
    assert not (task.folder / "executor_output.json").exists()


def test_bad_input_is_not_remembered(task: Task) -> None:
    code, _, err = task.run(fault="bad input")
    assert (code, err.splitlines()[-1]) == (2, "error: the stand-in does not like what it was given")
    assert task.run()[0] == 0


def test_a_killed_step_resumes_in_its_place(task: Task, tmp_path: Path) -> None:
    assert task.run(fault="die once")[0] == 137
    assert not (task.folder / "artifact").exists()
    assert task.run(fault="die once")[0] == 0
    assert task.attempts() == [0, 3]
    resumed = (task.folder / "artifact" / "result.txt").read_text()
    task.folder.rename(tmp_path / "first")
    assert task.run()[0] == 0
    assert (task.folder / "artifact" / "result.txt").read_text() == resumed


def test_an_interrupted_step(task: Task) -> None:
    process = task.start(fault="wait")
    chain = task.folder / "artifact.partial" / ".checkpoints" / "chain.json"
    deadline = time.monotonic() + 60
    while not (chain.exists() and json.loads(chain.read_text())[0] == 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert err.splitlines()[-1].startswith("interrupted: ")
    assert task.run()[0] == 0
    assert task.attempts() == [0, 3]


def test_params_file_is_exact_and_is_yaml(task: Task) -> None:
    task.own = {"rate": 1e-05, "small": 5e-324, "seeds": [BIG, -1], "text": "${x}: #'\"\n", "none": None}
    text = shim.params_text(step("reward"), ExecutorInput.parse(json.dumps(task.given())))
    assert json.loads(text) == {"run": {"seed": BIG}, "reward": task.own}
    loaded = yaml.safe_load(text)["reward"]
    assert loaded["seeds"] == task.own["seeds"] and loaded["text"] == task.own["text"]


@pytest.mark.parametrize(
    ("stderr", "code", "line"),
    [
        ("refused: gate: a < b\ntorchrun: Root Cause: exitcode 3\n", 3, "refused: gate: a < b"),
        ("interrupted: stopped\nTraceback\n", 75, "interrupted: stopped"),
        ("error: x: bad\n----\n", 2, "error: x: bad"),
        ("refused: earlier talk\nTraceback\nValueError: x\n", 1, "ValueError: x"),
    ],
)
def test_the_steps_own_word_among_torchruns(stderr: str, code: int, line: str) -> None:
    assert shim._last_word(Ended(code, stderr)) == line


def test_several_processes_are_started_by_torchrun() -> None:
    inputs: Mapping[str, str] = {"corpus": "/c"}
    words = shim.step_command(step("reward"), "/p.json", inputs, "/out", processes=4)
    end = ["components.reward", "run", "--params", "/p.json", "--corpus", "/c", "--out", "/out"]
    assert words[-len(end) :] == end
    assert words[words.index("--nproc-per-node") + 1] == "4"
    assert words[1:3] == ["-m", "pipelines.trainjob.torchrun"]


@pytest.mark.parametrize(
    ("name", "message", "part"),
    [
        ("rewards", None, "STEP = rewards: must be one of corpus, generator, reward"),
        ("reward", "{}", "not an ExecutorInput"),
        ("reward", '{"outputs": {"outputFile": "x"}}', "no output artifact artifact"),
    ],
)
def test_mistakes_in_the_command(task: Task, name: str, message: str | None, part: str) -> None:
    words = [sys.executable, "-m", "pipelines.container.entrypoint", name, "--executor-input"]
    done = subprocess.run(
        [*words, message or json.dumps(task.given())],
        cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert part in done.stderr and done.stderr.count("\n") == 1
