"""The compiled pipeline on this machine: Kubeflow's local runner, the real shim and exit handler.

The default tests put stand-ins in the place of the steps, which are the matter of their own tests; the corpus
of the undisturbed run is the real one. The slow tests run the real steps.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.local.config import LocalExecutionConfig

from components.runtime import step as step_module
from components.runtime.artifacts.artifact import open_artifact
from pipelines.__main__ import app
from pipelines.local.engines import HostEngine
from pipelines.steps import STEPS
from tests.pipelines.standins import FAULTS, LOG, attempts, install

NAMES = [one.name for one in STEPS]
TINY_CORPUS = (
    "corpus.sources=[world]", "corpus.world_clips.train=2",
    "corpus.world_clips.val=1", "corpus.world_clips.test=1",
)  # fmt: skip


class LocalRun:
    """A finished `run-local --runner host`: exit code, output, folder."""

    def __init__(self, root: Path, code: int, out: str, err: str) -> None:
        self.root, self.code, self.out, self.err = root, code, out, err
        self.folder = max(root.glob("onlinevpo-*"), default=root / "none")  # dated

    def states(self) -> dict[str, str]:
        """What the table says of each step."""
        rows = re.findall(rf"^({'|'.join(NAMES)}) +(\S.*?)(?:  |$)", self.out.split("step  ")[-1], re.M)
        return {name: state.strip() for name, state in rows}

    def attempts(self, name: str) -> list[int]:
        return attempts(self.root / "standins.log", name)

    def page(self) -> str:
        return (self.folder / "report.html").read_text()


def words(root: Path, settings: tuple[str, ...], *more: str) -> list[str]:
    flags = [part for setting in settings for part in ("--set", setting)]
    return ["run-local", "--runner", "host", "--root", str(root), *flags, *more]


def environment(root: Path, overlay: Path, faults: dict[str, str]) -> dict[str, str]:
    root.mkdir(parents=True, exist_ok=True)
    return {
        "PYTHONPATH": str(overlay),
        FAULTS: json.dumps(faults),
        LOG: str(root / "standins.log"),
        "MLFLOW_TRACKING_URI": "sqlite:////nowhere/mlflow.db",  # tracking is off in these tests
    }


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("standins"), NAMES)


Run = Callable[..., LocalRun]


@pytest.fixture
def run(
    tmp_path: Path, overlay: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run `python -m pipelines run-local --runner host` on stand-ins, in this process."""

    def start(*settings: str, more: tuple[str, ...] = (), **faults: str) -> LocalRun:
        root = tmp_path / "root"
        return in_process(words(root, settings, *more), root, overlay, faults, monkeypatch, capfd)

    return start


def in_process(
    arguments: list[str],
    root: Path,
    overlay: Path,
    faults: dict[str, str],
    patch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> LocalRun:
    for name, value in environment(root, overlay, faults).items():
        patch.setenv(name, value)
    patch.chdir(root)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            step_module.main(app, arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert isinstance(caught.value.code, int)
    return LocalRun(root, caught.value.code, *capfd.readouterr())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> LocalRun:
    """An undisturbed run with the real corpus step, as a command."""
    root = tmp_path_factory.mktemp("whole")
    overlay = install(tmp_path_factory.mktemp("without-corpus"), NAMES[1:])
    own = environment(root, overlay, {})
    own["PYTHONPATH"] += f"{os.pathsep}{repository}"
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words(root, TINY_CORPUS)],
        cwd=root, env={**os.environ, **own, "ONLINEVPO_TRACKING": "off"},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    return LocalRun(root, done.returncode, done.stdout, done.stderr)


def test_the_whole_pipeline(whole: LocalRun) -> None:
    assert whole.code == 0, whole.err[-2000:]
    assert whole.states() == dict.fromkeys(NAMES, "done")
    opened = {name: open_artifact(whole.folder / name / "artifact", step=name) for name in NAMES}
    for one in STEPS:
        artifact = opened[one.name]
        assert artifact.manifest.inputs == {name: opened[name].manifest.digest for name in one.inputs}
        assert f"{artifact.manifest.digest[:12]}  onlinevpo-" in whole.out
        for name, shown in one.shown.items():
            left = whole.folder / one.name / name
            assert left.read_bytes() == artifact.file(shown.file).read_bytes()
    metrics = json.loads((whole.folder / "corpus" / "executor_output.json").read_text())
    said = metrics["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert said == opened["corpus"].metrics() and said["clips"] == 4


def test_what_is_run_is_what_compile_writes(whole: LocalRun) -> None:
    documents = list(yaml.safe_load_all((whole.root / "pipeline.yaml").read_text()))
    given = documents[0]["root"]["inputDefinitions"]["parameters"]["corpus_params"]["defaultValue"]
    assert json.loads(given)["world_clips"]["train"] == 2


def test_the_exit_handler_heard_of_success(whole: LocalRun) -> None:
    assert "Done: every step ended well" in whole.page()
    assert "SUCCEEDED" in whole.page()
    assert whole.out.rstrip().splitlines()[-2] == f"report: {whole.folder.name}/report.html"


def test_nothing_is_left_of_finished_work(whole: LocalRun) -> None:
    left = [path for path in (whole.root / "checkpoints").rglob("*") if path.is_file()]
    assert left == []
    assert list(whole.folder.glob("*/*.partial")) == []


def test_a_failing_gate_stops_the_run_before_alignment(run: Run) -> None:
    before = LocalExecutionConfig.instance
    refused = run("reward.gate.srcc_world=.99")
    assert LocalExecutionConfig.instance is before  # kfp's settings are the whole process's
    assert refused.code == 3
    reason = "reward gate: srcc_world 0.950 < 0.990"
    assert refused.err.splitlines()[-1] == f"refused: step reward: {reason}"
    expected = dict.fromkeys(NAMES, "not reached") | {"corpus": "done", "generator": "done"}
    assert refused.states() == expected | {"reward": "refused, 3 attempts"}
    assert refused.attempts("alignment") == []
    assert refused.attempts("reward") == [0]  # its retries found the refusal and did not start it again
    assert not (refused.folder / "alignment").exists()
    page = refused.page()  # so the exit handler ran, and was told
    assert "Refused by a quality gate: reward" in page and "FAILED" in page
    assert reason.replace("<", "&lt;") in page
    assert page.count(">not reached<") == 3


def test_a_step_that_dies_once_resumes(run: Run, tmp_path: Path) -> None:
    hurt = run(alignment="die once")
    assert hurt.code == 0, hurt.err[-2000:]
    assert hurt.states() == dict.fromkeys(NAMES, "done") | {"alignment": "done, 2 attempts"}
    assert hurt.attempts("alignment") == [0, 3]
    assert hurt.attempts("reward") == [0]
    undisturbed = tmp_path / "undisturbed"
    inputs = [part for name in ("corpus", "generator", "reward")
              for part in (f"--{name}", str(hurt.folder / name / "artifact"))]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "components.alignment", "run", *inputs, "--out", str(undisturbed)],
        env={**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{Path(__file__).parents[3]}",
             "ONLINEVPO_CHECKPOINTS": "", FAULTS: "{}"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    theirs, ours = (open_artifact(p, step="alignment").manifest
                    for p in (undisturbed, hurt.folder / "alignment" / "artifact"))  # fmt: skip
    assert theirs.files == ours.files


def test_retries_are_counted_and_silence_is_no_success(run: Run, tmp_path: Path) -> None:
    profile = tmp_path / "patient.yaml"
    profile.write_text("description: a test\nsteps: {generator: {retries: 1}, corpus: {retries: 3}}\n")
    silent = run(more=("--profile", str(profile)), generator="silent")
    assert silent.code == 1
    assert silent.states()["generator"] == "failed, 2 attempts"
    assert silent.attempts("generator") == [0, 0]
    last = silent.err.splitlines()[-1]
    assert last.startswith("error: step generator failed: error: step generator ended with 0 but its result")
    assert silent.attempts("reward") == []
    assert "Failed" in silent.page()


def test_a_container_that_does_nothing_is_no_success(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    start = HostEngine.start

    def lazy(self: HostEngine, image: str, command: Any, *others: Any) -> None:
        start(self, image, ["true", *command[3:]] if "generator" in command else command, *others)

    monkeypatch.setattr(HostEngine, "start", lazy)
    idle = run()
    assert idle.code == 1
    assert idle.states()["generator"] == "failed, 3 attempts"
    assert "error: step generator failed: it reported success, but " in idle.err.splitlines()[-1]
    assert "Failed" in idle.page() and idle.attempts("reward") == []


def test_an_interrupted_run_goes_on(run: Run, tmp_path: Path, overlay: Path, repository: Path) -> None:
    root = tmp_path / "root"
    own = {**os.environ, **environment(root, overlay, {"generator": "wait"}), "ONLINEVPO_TRACKING": "off"}
    own["PYTHONPATH"] += f"{os.pathsep}{repository}"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words(root, ())],
        cwd=root, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not list((root / "checkpoints").glob("generator-*/chain.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75
    stopped = LocalRun(root, 75, out, err)
    assert stopped.states()["generator"] == "interrupted"
    assert err.splitlines()[-1].startswith("interrupted: stopped on request; the same command goes on")
    kept = json.loads(next((root / "checkpoints").glob("generator-*/chain.json")).read_text())[0]
    again = run(reward="bad input")  # which ends the second run where it has shown what it should
    assert again.attempts("generator") == [0, kept] and kept > 0
    assert again.code == 2
    assert again.err.splitlines()[-1] == "error: step reward: the stand-in does not like what it was given"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--runner", "docker"), "--images: needed by --runner docker"),
        (("--profile", "miniature-2-nodes"), "nodes = 2: must be 1 on one machine"),
        (("--set", "reward.gate.srcc_wrld=1"), "did you mean `srcc_world`"),
    ],
)
def test_mistakes_cost_nothing(run: Run, more: tuple[str, ...], part: str) -> None:
    wrong = run(more=more)
    assert wrong.code == 2 and part in wrong.err and wrong.err.count("\n") == 1
    assert list(wrong.root.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [("corpus.prompts", "prompts.txt"), ("registry.gate", "/etc/gate.yaml"), ("generator.base", "./weights")],
)
def test_params_that_name_what_containers_cannot_see(
    run: Run, images_file: Path, setting: str, value: str
) -> None:
    more = ("--runner", "docker", "--images", str(images_file))
    wrong = run(f"{setting}={value}", more=more)
    assert wrong.code == 2
    assert (
        f"{setting} = {value}: containers see {wrong.root} only" in wrong.err and wrong.err.count("\n") == 1
    )
    assert list(wrong.root.iterdir()) == []
