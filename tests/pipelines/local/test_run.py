"""The compiled pipeline on this machine: Kubeflow's local runner, the real shim and exit handler.

The default tests put stand-ins in the place of the steps, which are the matter of their own tests; the corpus
of the undisturbed run is the real one. The slow tests run the real steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kfp.local.config import LocalExecutionConfig

from components.runtime import step as step_module
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError
from pipelines.__main__ import app
from pipelines.compiler.profile import Profile, load_profile
from pipelines.local import run as local
from pipelines.local.engines import Attempt, Host
from pipelines.local.run import Outcome
from pipelines.steps import STEPS, step
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
    start = Host.start

    def lazy(self: Host, client: Any, image: str, command: Any, *others: Any) -> None:
        start(self, client, image, ["true", *command[3:]] if "generator" in command else command, *others)

    monkeypatch.setattr(Host, "start", lazy)
    idle = run()
    assert idle.code == 1
    assert idle.states()["generator"] == "failed, 3 attempts"
    assert "error: step generator failed: it reported success, but " in idle.err.splitlines()[-1]
    assert "Failed" in idle.page() and idle.attempts("reward") == []


def ended(tmp_path: Path, *codes: int) -> list[Attempt]:
    return [Attempt(tmp_path / "finish", code, 1.0, f"ended with {code}") for code in codes]


def test_an_exit_handler_that_fails_is_told(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = [Outcome(name, "done", 0, "", (), tmp_path) for name in NAMES]
    with pytest.raises(OnlineVPOError, match="the exit handler left no report: it was never run"):
        local.conclude(done, [], page, stopped=False)
    with pytest.raises(OnlineVPOError, match="the exit handler left no report: ended with 0"):
        local.conclude(done, ended(tmp_path, 1, 0), page, stopped=False)
    page.touch()
    local.conclude(done, ended(tmp_path, 1, 0), page, stopped=False)
    with pytest.raises(OnlineVPOError, match="the exit handler left no report: ended with 1"):
        local.conclude(done, ended(tmp_path, 0, 1), page, stopped=False)
    # How a step ended says more.
    refused = Outcome("reward", "refused", 3, "refused: too bad", (), tmp_path)
    with pytest.raises(GateRefused, match="step reward: too bad"):
        local.conclude([*done, refused], ended(tmp_path, 1), page, stopped=False)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (2, InputError, "step reward: x"),
        (75, Interrupted, "step reward: x"),
        (137, OnlineVPOError, "step reward failed with exit code 137: x"),
    ],
)
def test_how_a_run_ends(tmp_path: Path, code: int, kind: type[OnlineVPOError], message: str) -> None:
    bad = Outcome("reward", "failed", code, f"{kind.label}: x" if code != 137 else "x", (), tmp_path)
    with pytest.raises(kind) as caught:
        local.conclude([bad], [], tmp_path / "none", stopped=False)
    assert (type(caught.value), str(caught.value)) == (kind, message)
    with pytest.raises(OnlineVPOError, match="step corpus was never run, though no step before it failed"):
        local.conclude([Outcome("corpus", "not reached", 1, "", (), tmp_path)], [], tmp_path, stopped=False)


def test_a_step_that_was_stopped_without_a_word_counts_as_interrupted(tmp_path: Path) -> None:
    silent, said = Attempt(tmp_path / "reward", 1, 1.0, ""), Attempt(tmp_path / "reward", 1, 1.0, "boom")
    states = {
        (attempt.last_line, stopped): local.outcome(step("reward"), [attempt], tmp_path, stopped).state
        for attempt in (silent, said)
        for stopped in (False, True)
    }
    assert states == {
        ("", False): "failed",
        ("", True): "interrupted",
        ("boom", False): "failed",
        ("boom", True): "failed",
    }


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


PLAIN = Profile(description="a test")


def test_how_containers_are_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(("AWS_", "HF_", "MLFLOW_", "ONLINEVPO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("ONLINEVPO_CACHE", "/home/me/cache")
    monkeypatch.setenv("HF_HOME", "/home/me/hub")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/certificates.pem")
    monkeypatch.setenv("SECRET_OF_ANOTHER", "x")
    me = (1000, 1001)
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "ONLINEVPO_CHECKPOINTS": str(tmp_path)}
    started = local.container_arguments(tmp_path, own, load_profile("miniature-cpu"), me)
    given = started["environment"]
    assert given.items() >= (own | {"AWS_ACCESS_KEY_ID": "key"}).items()
    assert not {"ONLINEVPO_CACHE", "HF_HOME", "AWS_CA_BUNDLE", "SECRET_OF_ANOTHER"} & set(given)
    assert started["user"] == "1000:1001"
    assert started["read_only"] is True
    assert set(started["tmpfs"]) == {"/cache", "/tmp"}
    assert started["shm_size"] == 2**30
    assert "network_mode" not in started and "device_requests" not in started
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000")
    assert local.container_arguments(tmp_path, own, PLAIN, me)["network_mode"] == "host"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store.example:9000")
    assert "network_mode" not in local.container_arguments(tmp_path, own, PLAIN, me)
    gpus = local.container_arguments(tmp_path, own, load_profile("miniature-gpu"), me)
    assert gpus["device_requests"][0]["Capabilities"] == [["gpu"]]


def owners(folder: Path) -> dict[str, tuple[int, int]]:
    """User and group of everything in a folder, and of the folder."""
    found = [folder, *folder.rglob("*")]
    return {str(p.relative_to(folder)): (p.lstat().st_uid, p.lstat().st_gid) for p in found}


def test_containers_run_as_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 1001)
    assert local.container_user(tmp_path / "new", rootless=False) == (1000, 1001)
    assert local.container_user(tmp_path / "new", rootless=True) == (0, 0)
    assert not (tmp_path / "new").exists()


def test_roots_containers_get_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda p, u, g, **_: given.append((Path(p).name, u, g)))
    with contextlib.suppress(
        InputError
    ):  # a recorded chown gives nothing away: as root, the folder stays ours
        local.container_user(tmp_path / "new", rootless=False)
    assert given == [("new", 10001, 10001)]


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")


@needs_root
def test_of_root_only_what_is_made_changes_hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("ONLINEVPO_CHECKPOINTS", raising=False)
    root = tmp_path / "root"
    (root / "photos").mkdir(parents=True)
    (root / "photos" / "a.jpg").touch()
    (root / "link").symlink_to(tmp_path)
    os.chown(root, 2001, 2002)
    os.chown(root / "photos", 3001, 3002)
    before = owners(root)
    user = local.container_user(root, rootless=False)
    assert user == (2001, 2002)
    local.run_environment(root, user)
    after = owners(root)
    assert before.items() <= after.items()
    assert {path: after[path] for path in after.keys() - before.keys()} == {
        "mlflow.db": (2001, 2002),
        "checkpoints": (2001, 2002),
    }
    assert local.container_user(root, rootless=False) == user  # the next run

    fresh = tmp_path / "deep" / "fresh"
    assert local.container_user(fresh, rootless=False) == (10001, 10001)
    assert owners(tmp_path / "deep") == {".": (0, 0), "fresh": (10001, 10001)}


@needs_root
def test_what_roots_containers_could_not_write_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--root {tmp_path}: belongs to root, and no container runs as"):
        local.container_user(tmp_path, rootless=False)
    os.chown(tmp_path, 2001, 2002)
    (tmp_path / "checkpoints").mkdir()
    os.chown(tmp_path / "checkpoints", 2001, 2002)
    (tmp_path / "checkpoints" / "state").touch()
    before = owners(tmp_path)
    with pytest.raises(InputError, match="checkpoints/state: belongs to user 0, and containers run as 2001"):
        local.container_user(tmp_path, rootless=False)
    assert owners(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("MLFLOW_TRACKING_URI", "sqlite:////home/me/mlflow.db"),
        ("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"),
        ("ONLINEVPO_CHECKPOINTS", "/home/me/checkpoints"),
    ],
)
def test_places_that_containers_cannot_see(tmp_path: Path, name: str, place: str) -> None:
    own = {"MLFLOW_TRACKING_URI": "https://mlflow.example", "ONLINEVPO_CHECKPOINTS": "s3://bucket/x"}
    with pytest.raises(InputError, match=f"{name} = .*: containers see {tmp_path} only"):
        local.container_arguments(tmp_path, own | {name: place}, PLAIN, (1000, 1001))


def test_own_tracking_lies_in_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    client = SimpleNamespace(create_experiment=lambda name, artifact_location: made.append(artifact_location))
    monkeypatch.setattr(local, "connect", lambda uri: SimpleNamespace(MlflowClient=lambda uri: client))
    given = local.run_environment(tmp_path)
    assert given["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert made == [(tmp_path / "mlruns").as_uri()]
    (tmp_path / "mlflow.db").touch()
    assert local.run_environment(tmp_path) == given and len(made) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert local.run_environment(tmp_path)["MLFLOW_TRACKING_URI"] == "https://mlflow.example"


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
