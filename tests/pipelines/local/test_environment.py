"""What the containers of a local run are started with."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.runtime.errors import InputError
from pipelines.compiler.profile import Profile, load_profile
from pipelines.local import environment
from pipelines.local.environment import container_arguments, container_user, run_environment

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
    started = container_arguments(tmp_path, own, load_profile("miniature-cpu"), me)
    given = started["environment"]
    assert given.items() >= (own | {"AWS_ACCESS_KEY_ID": "key"}).items()
    assert not {"ONLINEVPO_CACHE", "HF_HOME", "AWS_CA_BUNDLE", "SECRET_OF_ANOTHER"} & set(given)
    assert started["user"] == "1000:1001"
    assert started["read_only"] is True
    assert set(started["tmpfs"]) == {"/cache", "/tmp"}
    assert started["shm_size"] == 2**30
    assert "network_mode" not in started and "device_requests" not in started
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000")
    assert container_arguments(tmp_path, own, PLAIN, me)["network_mode"] == "host"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store.example:9000")
    assert "network_mode" not in container_arguments(tmp_path, own, PLAIN, me)
    gpus = container_arguments(tmp_path, own, load_profile("miniature-gpu"), me)
    assert gpus["device_requests"][0]["Capabilities"] == [["gpu"]]


def owners(folder: Path) -> dict[str, tuple[int, int]]:
    """User and group of everything in a folder, and of the folder."""
    found = [folder, *folder.rglob("*")]
    return {str(p.relative_to(folder)): (p.lstat().st_uid, p.lstat().st_gid) for p in found}


def test_containers_run_as_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 1001)
    assert container_user(tmp_path / "new", rootless=False) == (1000, 1001)
    assert container_user(tmp_path / "new", rootless=True) == (0, 0)
    assert not (tmp_path / "new").exists()


def test_roots_containers_get_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda p, u, g, **_: given.append((Path(p).name, u, g)))
    with contextlib.suppress(
        InputError
    ):  # a recorded chown gives nothing away: as root, the folder stays ours
        container_user(tmp_path / "new", rootless=False)
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
    user = container_user(root, rootless=False)
    assert user == (2001, 2002)
    run_environment(root, user)
    after = owners(root)
    assert before.items() <= after.items()
    assert {path: after[path] for path in after.keys() - before.keys()} == {
        "mlflow.db": (2001, 2002),
        ".mlflow.db.lock": (2001, 2002),
        "checkpoints": (2001, 2002),
    }
    assert container_user(root, rootless=False) == user  # the next run

    fresh = tmp_path / "deep" / "fresh"
    assert container_user(fresh, rootless=False) == (10001, 10001)
    assert owners(tmp_path / "deep") == {".": (0, 0), "fresh": (10001, 10001)}


@needs_root
def test_what_roots_containers_could_not_write_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--root {tmp_path}: belongs to root, and no container runs as"):
        container_user(tmp_path, rootless=False)
    os.chown(tmp_path, 2001, 2002)
    (tmp_path / "checkpoints").mkdir()
    os.chown(tmp_path / "checkpoints", 2001, 2002)
    (tmp_path / "checkpoints" / "state").touch()
    before = owners(tmp_path)
    with pytest.raises(InputError, match="checkpoints/state: belongs to user 0, and containers run as 2001"):
        container_user(tmp_path, rootless=False)
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
        container_arguments(tmp_path, own | {name: place}, PLAIN, (1000, 1001))


def test_own_tracking_lies_in_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    client = SimpleNamespace(create_experiment=lambda name, artifact_location: made.append(artifact_location))
    monkeypatch.setattr(environment, "connect", lambda uri: SimpleNamespace(MlflowClient=lambda uri: client))
    given = run_environment(tmp_path)
    assert given["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert made == [(tmp_path / "mlruns").as_uri()]
    (tmp_path / "mlflow.db").touch()
    assert run_environment(tmp_path) == given and len(made) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert run_environment(tmp_path)["MLFLOW_TRACKING_URI"] == "https://mlflow.example"
