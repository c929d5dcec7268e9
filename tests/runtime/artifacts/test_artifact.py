from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import Field

from components.runtime.artifacts import publish as publishing
from components.runtime.artifacts.artifact import input_digest, open_artifact
from components.runtime.artifacts.manifest import MANIFEST
from components.runtime.artifacts.publish import publish
from components.runtime.errors import GateRefused, InputError, Interrupted
from components.runtime.io import files
from components.runtime.params import StepParams


class ExampleParams(StepParams):
    size: int = Field(1, description="anything")


def make(out: Path, text: str = "hello", params: ExampleParams | None = None, **inputs: Path) -> Path:
    with publish(out, step="example", params=params or ExampleParams(), inputs=inputs) as workspace:
        (workspace.dir / "plots").mkdir(exist_ok=True)
        (workspace.dir / "plots" / "curve.txt").write_text(text)
        (workspace.checkpoints / "left").write_text("x")
        workspace.write_metrics({"score": 0.5})
    assert workspace.published == out
    return out


def beside(out: Path) -> list[str]:
    return sorted(p.name for p in out.parent.iterdir())


def test_published_artifact_is_complete_and_opens(tmp_path: Path) -> None:
    out = make(tmp_path / "first")
    assert beside(out) == ["first"]
    assert sorted(p.name for p in out.iterdir()) == [MANIFEST, "metrics.json", "plots"]
    found = open_artifact(out, step="example")
    assert found.metrics() == {"score": 0.5}
    assert found.file("plots/curve.txt").read_text() == "hello"
    assert set(found.manifest.files) == {"metrics.json", "plots/curve.txt"}
    assert found.manifest.seed == 0
    assert "torch" in found.manifest.libraries
    assert found.manifest.code_version


def test_digest_follows_content_and_ancestry_only(tmp_path: Path) -> None:
    one = open_artifact(make(tmp_path / "one")).manifest
    same = open_artifact(make(tmp_path / "same")).manifest
    other = open_artifact(make(tmp_path / "other", text="other")).manifest
    child = open_artifact(make(tmp_path / "child", parent=tmp_path / "one")).manifest
    assert one.digest == same.digest
    assert len({one.digest, other.digest, child.digest}) == 3
    assert child.inputs == {"parent": one.digest}


def test_an_existing_artifact_is_replaced_whole(tmp_path: Path) -> None:
    out = make(tmp_path / "a", "old")
    (out / "plots" / "curve.txt").write_text("altered")
    with publish(out, step="example", params=ExampleParams()) as workspace:
        assert (out / "plots" / "curve.txt").read_text() == "altered"
        workspace.write_metrics({"score": 1})
    assert sorted(p.name for p in out.iterdir()) == [MANIFEST, "metrics.json"]
    assert beside(out) == ["a"]


def test_replacement_without_an_exchange_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    out = make(tmp_path / "a", "old")
    make(out, "new")
    assert open_artifact(out).file("plots/curve.txt").read_text() == "new"
    (out / files.REPLACED).touch()
    out.rename(tmp_path / "a.previous")  # as a kill between the two renames leaves it
    with pytest.raises(ZeroDivisionError), publish(out, step="example", params=ExampleParams()):
        assert open_artifact(out).file("plots/curve.txt").read_text() == "new"
        raise ZeroDivisionError


def fail(out: Path, error: BaseException, params: ExampleParams | None = None) -> None:
    with (
        pytest.raises(type(error)),
        publish(out, step="example", params=params or ExampleParams()) as workspace,
    ):
        (workspace.dir / "half.txt").write_text("half")
        (workspace.checkpoints / "step").write_text("3")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("bug"), Interrupted(), KeyboardInterrupt()])
def test_interrupted_work_publishes_nothing_and_resumes(error: BaseException, tmp_path: Path) -> None:
    out = tmp_path / "a"
    fail(out, error)
    assert beside(out) == ["a.partial"]
    with pytest.raises(InputError, match="not finished"):
        open_artifact(out)
    with publish(out, step="example", params=ExampleParams()) as workspace:
        assert workspace.resumed
        assert (workspace.checkpoints / "step").read_text() == "3"
        workspace.write_metrics({})
    assert beside(out) == ["a"]


def test_other_params_or_inputs_start_afresh(tmp_path: Path) -> None:
    out = tmp_path / "a"
    fail(out, Interrupted())
    with publish(out, step="example", params=ExampleParams(size=2)) as workspace:
        assert not workspace.resumed
        assert not (workspace.checkpoints / "step").exists()
        assert not (workspace.dir / "half.txt").exists()
        workspace.write_metrics({})


@pytest.mark.parametrize("error", [InputError("bad"), GateRefused("low")])
def test_refused_work_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    fail(tmp_path / "a", error)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_can_be_published_with_its_reason(tmp_path: Path) -> None:
    out = tmp_path / "a"
    with pytest.raises(GateRefused), publish(out, step="example", params=ExampleParams()) as workspace:
        workspace.write_metrics({"srcc": 0.1})
        workspace.publish_on_refusal = True
        raise GateRefused("SRCC 0.1 below 0.85")
    with pytest.raises(InputError, match=r"refused by its quality gate: SRCC 0\.1"):
        open_artifact(out)
    assert open_artifact(out, allow_refused=True).manifest.refused == "SRCC 0.1 below 0.85"


def test_kill_leaves_no_artifact(tmp_path: Path, repository: Path) -> None:
    out = tmp_path / "a"
    code = f"""
import os, signal
from components.runtime.artifacts.publish import publish
from components.runtime.params import StepParams
with publish({str(out)!r}, step="example", params=StepParams()) as workspace:
    (workspace.dir / "x").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert beside(out) == ["a.partial"]
    with publish(out, step="example", params=StepParams()) as workspace:
        assert workspace.resumed
        workspace.write_metrics({})


def test_two_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.runtime.artifacts.workspace._LOCK_PATIENCE_S", 0.1)
    with publish(tmp_path / "a", step="example", params=ExampleParams()) as workspace:
        with pytest.raises(InputError, match="another process"):
            make(tmp_path / "a")
        workspace.write_metrics({})
    open_artifact(tmp_path / "a")


def test_metrics_are_required_and_finite(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"metrics\.json"),
        publish(tmp_path / "a", step="example", params=ExampleParams()),
    ):
        pass
    with (
        pytest.raises(ValueError, match="score = nan"),
        publish(tmp_path / "b", step="example", params=ExampleParams()) as workspace,
    ):
        workspace.write_metrics({"score": float("nan")})


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "word"), [(truncate, "truncated"), (alter, "altered"), (Path.unlink, "missing")]
)
def test_damaged_file_is_named(damage: Callable[[Path], None], word: str, tmp_path: Path) -> None:
    out = make(tmp_path / "a")
    damage(out / "plots" / "curve.txt")
    with pytest.raises(InputError, match=rf"plots/curve\.txt: {word}") as caught:
        open_artifact(out)
    assert "\n" not in str(caught.value)


def edit(out: Path, **changes: object) -> None:
    manifest = json.loads((out / MANIFEST).read_text())
    manifest.update(changes)
    (out / MANIFEST).write_text(json.dumps(manifest))


def test_damaged_manifest_is_named(tmp_path: Path) -> None:
    out = make(tmp_path / "a")
    edit(out, params={"size": 2})
    with pytest.raises(InputError, match=r"manifest\.json: altered"):
        open_artifact(out)
    edit(out, files={"../../etc/passwd": {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(InputError, match="unsafe file name"):
        open_artifact(out)
    truncate(out / MANIFEST)
    (out / MANIFEST).write_text('{"step": "exa')
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        open_artifact(out)


def test_wrong_and_missing_artifacts(tmp_path: Path) -> None:
    out = make(tmp_path / "a")
    with pytest.raises(InputError, match="made by step example, but an artifact of step reward"):
        open_artifact(out, step="reward")
    with pytest.raises(
        InputError, match=r"b: no artifact there; make it first: python -m components\.reward run"
    ):
        open_artifact(tmp_path / "b", step="reward")
    with pytest.raises(InputError, match="not a finished artifact"):
        open_artifact(tmp_path)
    with pytest.raises(InputError, match="has no file x"):
        open_artifact(out).file("x")
    with pytest.raises(InputError, match="ftp://"):
        open_artifact("ftp://host/x")
    with pytest.raises(InputError, match="no such input"):
        make(tmp_path / "c", parent=tmp_path / "absent")
    assert not (tmp_path / "c.partial").exists()


def test_plain_folders_and_files_are_inputs_too(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"1")
    before = input_digest(folder)
    assert input_digest(f"file://{folder}") == before
    (folder / "a.mp4").write_bytes(b"2")
    assert input_digest(folder) != before
    assert input_digest(folder / "a.mp4") == files.sha256_file(folder / "a.mp4")


def test_links_are_not_published(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="link"),
        publish(tmp_path / "a", step="example", params=ExampleParams()) as workspace,
    ):
        (workspace.dir / "passwd").symlink_to("/etc/passwd")
        workspace.write_metrics({})


@pytest.mark.parametrize("checkpointed", [False, True])
def test_full_disk_while_working(checkpointed: bool, tmp_path: Path) -> None:
    out = tmp_path / "a"
    with (
        pytest.raises(InputError, match=r"a: cannot be written: .*No space left on device"),
        publish(out, step="example", params=ExampleParams()) as workspace,
    ):
        (workspace.dir / "half.bin").write_text("half")
        if checkpointed:
            (workspace.checkpoints / "step").write_text("3")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(workspace.dir / "half.bin"))
    left = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()]
    expected = ["a.partial/.checkpoints/step", "a.partial/.identity.json", "a.partial/.lock"]
    assert sorted(left) == (expected if checkpointed else [])


def test_full_disk_while_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = make(tmp_path / "a", "old")
    monkeypatch.setattr(publishing, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        make(out, "new")
    assert open_artifact(out).file("plots/curve.txt").read_text() == "old"


@pytest.mark.parametrize("kind", ["below a file", "in the place of a file", "in /proc", "read-only"])
def test_unwritable_output(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    places = {"below a file": tmp_path / "file" / "a", "in the place of a file": tmp_path / "file"}
    out = places.get(kind, Path("/proc/onlinevpo/a") if kind == "in /proc" else tmp_path / "a")
    if kind == "read-only":

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(out))

        monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="cannot be written"):
        make(out)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_digest_is_of_the_result_not_of_the_run(tmp_path: Path) -> None:
    digests = []
    for out, seconds, score in (("a", "1.5", "x"), ("b", "9.9", "x"), ("c", "1.5", "y")):
        with publish(tmp_path / out, step="example", params=StepParams()) as workspace:
            (workspace.dir / "timing.json").write_text(seconds)
            (workspace.dir / "scores.txt").write_text(score)
            workspace.about_run.add("timing.json")
            workspace.write_metrics({})
        digests.append(open_artifact(tmp_path / out).manifest.digest)
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "a" / "timing.json").write_text("7.7")
    with pytest.raises(InputError, match=r"timing\.json: altered"):
        open_artifact(tmp_path / "a")
