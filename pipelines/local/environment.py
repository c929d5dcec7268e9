"""What the containers of a local run are started with: environment, user, limits, places for what is kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.runtime.artifacts import remote_checkpoints as mirror
from components.runtime.errors import InputError
from components.runtime.tracking.mlflow_client import EXPERIMENT, connect
from pipelines.client.address import on_this_machine
from pipelines.compiler.profile import Profile
from pipelines.steps import STEPS
from pipelines.trainjob.settings import USER

_PASSED_ON = ("AWS_", "HF_", "MLFLOW_", "ONLINEVPO_")
_ALSO_PASSED_ON = ("OMP_NUM_THREADS",)  # the number of threads may change the last bits of a result
_KEPT_BACK = ("HF_HOME", "ONLINEVPO_CACHE", "ONLINEVPO_CODE_VERSION")  # the image itself knows better
#: Numbers of a user and a group.
User = tuple[int, int]


def run_environment(root: Path, user: User | None = None) -> dict[str, str]:
    """What every step's environment holds besides the caller's: places for tracking and for checkpoints.

    Args:
        root: where both are made, unless the caller's environment names others.
        user: who shall own what is made; None: this process's user.
    """
    missing = [path for path in _kept(root) if not path.exists()]
    given = {name: os.environ.get(name, "") for name in ("MLFLOW_TRACKING_URI", mirror.VARIABLE)}
    if not given["MLFLOW_TRACKING_URI"]:
        given["MLFLOW_TRACKING_URI"] = _own_tracking(root)
    if not given[mirror.VARIABLE]:
        given[mirror.VARIABLE] = str(root / "checkpoints")
        (root / "checkpoints").mkdir(exist_ok=True)
    for path in missing:
        if user is not None and os.getuid() == 0 and path.exists():
            os.chown(path, *user, follow_symlinks=False)
    return given


def container_user(root: Path, rootless: bool) -> User:
    """The user and group that containers run as.

    It is the calling user, so that what they write is theirs. Containers of root run as the owner of `root`,
    and where there is no such folder it is made for the images' own user. Nothing that was there before
    changes hands.

    Args:
        root: the folder that containers see.
        rootless: whether the engine runs as the calling user, who is then root in its containers.

    Raises:
        InputError: root's containers would have to run as root, or could not write what is in the folder.
    """
    if rootless:
        return 0, 0
    if os.getuid() != 0:
        return os.getuid(), os.getgid()
    if not root.exists():
        root.mkdir(parents=True)
        os.chown(root, USER, USER)
    about = root.stat()
    if about.st_uid == 0:
        raise InputError(
            f"--root {root}: belongs to root, and no container runs as root; name a folder that does not "
            "exist yet, or one of the user that containers shall run as"
        )
    for kept in _kept(root):
        for path in (kept, *(kept.rglob("*") if kept.is_dir() and not kept.is_symlink() else ())):
            if (path.exists() or path.is_symlink()) and path.lstat().st_uid != about.st_uid:
                raise InputError(
                    f"{path}: belongs to user {path.lstat().st_uid}, and containers run as {about.st_uid}, "
                    f"the owner of {root}, who must own it, too; or name another --root"
                )
    return about.st_uid, about.st_gid


def container_arguments(
    root: Path, environment: dict[str, str], profile: Profile, user: User
) -> dict[str, Any]:
    """How every container is started, as arguments of the Docker SDK's `containers.run`.

    With a read-only root and writable /cache and /tmp, as on a cluster.

    Raises:
        InputError: if the environment names a folder or database that containers cannot see.
    """
    from docker.types import DeviceRequest
    from kubernetes.utils.quantity import parse_quantity

    passed = {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(_PASSED_ON) or name in _ALSO_PASSED_ON) and name not in _KEPT_BACK
    }
    # Files and folders of this machine, such as AWS_CA_BUNDLE, are not there in a container.
    passed = {name: value for name, value in passed.items() if not value.startswith(("/", "~"))} | environment
    for name in environment:
        _check_visible(name, passed[name], root)
    shared = max(parse_quantity(profile.place(step.name).shared_memory) for step in STEPS)
    arguments: dict[str, Any] = {
        "environment": passed,
        "user": f"{user[0]}:{user[1]}",
        "read_only": True,
        "tmpfs": {"/cache": "mode=1777", "/tmp": "mode=1777"},
        "shm_size": int(shared),
    }
    if any(_on_this_machine(value) for value in passed.values()):
        # A server on this machine's loopback is out of reach from a network of the container's own.
        arguments["network_mode"] = "host"
    if any(profile.place(step.name).gpus for step in STEPS):
        arguments["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return arguments


def _own_tracking(root: Path) -> str:
    """A database in the root; its experiment keeps its files beside it, wherever a step's own folder is."""
    uri = f"sqlite:///{root}/mlflow.db"
    if not (root / "mlflow.db").exists():
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        client = connect(uri).MlflowClient(uri)
        client.create_experiment(name, artifact_location=(root / "mlruns").as_uri())
    return uri


def _kept(root: Path) -> list[Path]:
    """What is in the root beside the runs' own folders and is written by containers."""
    return [root / name for name in ("mlflow.db", ".mlflow.db.lock", "mlruns", "checkpoints")]


def _check_visible(name: str, place: str, root: Path) -> None:
    """Refuse a local place outside the folder that containers see."""
    if place.startswith("sqlite:///"):
        path = Path(place.removeprefix("sqlite:///"))
    elif "://" not in place:
        path = Path(place)
    else:
        return
    if not path.resolve().is_relative_to(root):
        raise InputError(
            f"{name} = {place}: containers see {root} only; put it there, or name a server or an s3:// prefix"
        )


def _on_this_machine(value: str) -> bool:
    if not value.startswith(("http://", "https://", "postgresql://", "mysql://")):
        return False
    return on_this_machine(urlsplit(value).hostname or "")
