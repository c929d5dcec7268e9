from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file

from components.runtime import step as step_module
from components.runtime.artifacts.publish import publish
from components.runtime.errors import GateRefused, InputError, Interrupted
from components.runtime.params import StepParams

TOY = Path(__file__).with_name("toy_step.py")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    with publish(tmp_path / "corpus", step="corpus", params=StepParams()) as workspace:
        workspace.write_metrics({"clips": 3})
    return tmp_path / "corpus"


Toy = Callable[..., tuple[int, str, str]]


@pytest.fixture
def toy(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Toy:
    """Run the toy step's command line in an empty folder: its exit code, stdout and stderr."""
    names = runpy.run_path(str(TOY))
    app = step_module.step_app("toy", names["ToyParams"], names["run"], inputs=("corpus",))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, out: str = "toy", corpus: str = str(corpus)) -> tuple[int, str, str]:
        code = exit_code(app, ["run", "--corpus", corpus, "--out", out, *arguments])
        return code, *capsys.readouterr()

    return run


def exit_code(app: typer.Typer, arguments: list[str]) -> int:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            step_module.main(app, arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_and_run_again_ends_in_the_same_weights(
    stop: signal.Signals, toy: Toy, tmp_path: Path, repository: Path, corpus: Path
) -> None:
    slow = ["--set", "toy.steps=30", "--set", "toy.pause=0.05"]
    process = subprocess.Popen(
        [sys.executable, str(TOY), "run", "--corpus", str(corpus), "--out", "cut", *slow],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("saved=10"):
            break
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if stop == signal.SIGKILL else 75)
    if stop != signal.SIGKILL:
        assert err.splitlines()[-1].startswith("interrupted: ")
        assert "Traceback" not in err
    assert not (tmp_path / "cut").exists()
    code, out, _ = toy(*slow, out="cut")
    assert code == 0
    assert "resumed=True" in out
    assert 10 <= int(re.findall(r"from=(\d+)", out)[0]) < 30
    assert not (tmp_path / "cut.partial").exists()
    assert toy("--set", "toy.steps=30", out="whole")[0] == 0
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_exit_codes_and_last_lines(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, out, _ = toy("--set", "toy.steps=3")
    assert code == 0
    assert "toy: done, toy" in out
    assert re.search(r"loss  \d", out)
    cases = [
        (
            toy("--set", "toy.steps=0", out="b"),
            2,
            "error: toy.steps = 0: must be greater than or equal to 1 (tr",
        ),
        (toy("--params", "absent.yaml", out="b"), 2, "error: params file absent.yaml: No such file"),
        (toy(corpus="absent", out="b"), 2, "error: absent: no artifact there; make it first: python -m comp"),
        (toy(out="file/b"), 2, "error: file/b: cannot be written: "),
        (toy("--set", "toy.steps=3", "--set", "toy.threshold=99", out="refused"), 3, "refused: loss "),
    ]
    for (code, _, err), expected, last in cases:
        assert code == expected
        assert err.splitlines()[-1].startswith(last)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "file", "refused", "toy"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(params: StepParams, *, out: str) -> None:
        with publish(out, step="example", params=params), open("/dev/full", "w") as file:
            file.write("x")

    assert ends(run, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot be written: No space left on device" in error
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("may not mount a tmpfs here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_too_small_for_the_result(toy: Toy, small_disk: Path) -> None:
    out = str(small_disk / "toy")
    code, _, err = toy("--set", "toy.steps=3", "--set", "toy.write_bytes=2000000", out=out)
    assert code == 2
    assert re.fullmatch(r"error: .*toy: cannot be written: .*No space left on device", err.splitlines()[-1])
    assert list(small_disk.iterdir()) == []


def test_a_disk_too_small_for_the_checkpoints_keeps_the_last_whole_one(toy: Toy, small_disk: Path) -> None:
    (small_disk / "other").write_bytes(b"x" * (2**20 - 4 * 4096))  # room for one checkpoint and a half
    code, _, err = toy("--set", "toy.steps=30", out=str(small_disk / "toy"))
    assert code == 2
    assert "No space left on device; checkpoints are kept in" in err.splitlines()[-1]
    (small_disk / "other").unlink()
    code, out, _ = toy("--set", "toy.steps=30", out=str(small_disk / "toy"))
    assert code == 0
    assert "resumed=True" in out and "from=" in out


def test_a_read_only_disk(toy: Toy, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, _, err = toy("--set", "toy.steps=3", out=str(small_disk / "toy"))
    assert code == 2
    assert re.fullmatch(r"error: .*toy: cannot be written: .*Read-only file system", err.splitlines()[-1])
    assert list(small_disk.iterdir()) == []


def ends(run: Callable[..., object], tmp_path: Path, *arguments: str) -> int:
    """Exit code of a step whose `run` is the given function."""
    app = step_module.step_app("example", StepParams, run)
    return exit_code(app, ["run", "--out", str(tmp_path / "out"), *arguments])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("bad\nvideo"), 2, "error: bad video\n"),
        (GateRefused("low"), 3, "refused: low\n"),
        (Interrupted(), 75, "interrupted: stopped on request; run the same command again to resume\n"),
        (KeyboardInterrupt(), 75, "interrupted: stopped on request; run the same command again to resume\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied\n"),
    ],
)
def test_error_to_exit_code(
    error: BaseException, code: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(params: StepParams, *, out: str) -> None:
        raise error

    assert ends(run, tmp_path) == code
    assert capsys.readouterr().err.lstrip("\n") == line


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    def run(params: StepParams, *, out: str) -> None:
        raise FileNotFoundError("a bug")

    with pytest.raises(FileNotFoundError):
        step_module.main(
            step_module.step_app("example", StepParams, run), ["run", "--out", str(tmp_path / "out")]
        )


def test_unknown_option_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(params: StepParams, *, out: str) -> None:
        pytest.fail("ran")

    assert ends(run, tmp_path, "--sed", "1") == 2
    assert "--sed" in capsys.readouterr().err


def test_params_yaml_here_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, dict[str, object]]] = []

    def run(params: StepParams, **given: object) -> None:
        seen.append((params.run.seed, given))

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("run: {seed: 11}\n")
    app = step_module.step_app("example", StepParams, run, inputs=("corpus", "base_model"))
    for arguments in ([], ["--set", "run.seed=12", "--base-model", "s3://b/m", "--out", "x"]):
        with pytest.raises(SystemExit):
            step_module.main(app, ["run", *arguments])
    defaults = {
        "corpus": "artifacts/corpus",
        "base_model": "artifacts/base_model",
        "out": "artifacts/example",
    }
    assert seen == [(11, defaults), (12, {**defaults, "base_model": "s3://b/m", "out": "x"})]


def test_help_imports_nothing_heavy(repository: Path) -> None:
    code = """
import sys
from components.runtime.params import StepParams
from components.runtime.step import main, step_app
try:
    main(step_app("example", StepParams, "no.such.module:run", inputs=("corpus",)), ["run", "--help"])
except SystemExit as end:
    assert not {"torch", "mlflow", "boto3", "omegaconf"} & set(sys.modules), set(sys.modules)
    raise
"""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        text=True,
        capture_output=True,
        timeout=60,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    for option in ("--params", "--set", "--corpus", "--out"):
        assert option in done.stdout


def test_inputs_that_a_run_can_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[tuple[str, str | None]] = []

    def run(params: StepParams, *, corpus: str, judge: str | None, out: str) -> None:
        given.append((corpus, judge))

    app = step_module.step_app("toy", StepParams, run, inputs=("corpus",), optional=("judge",))
    monkeypatch.chdir(tmp_path)
    assert exit_code(app, ["run"]) == 0
    assert exit_code(app, ["run", "--judge", "s3://bucket/second"]) == 0
    assert given == [("artifacts/corpus", None), ("artifacts/corpus", "s3://bucket/second")]
