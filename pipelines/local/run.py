"""The compiled pipeline on one machine, through Kubeflow's own local runner, in containers or without.

    ROOT/pipeline.yaml       what is run, as `compile` writes it
    ROOT/RUN/STEP/artifact   a step's artifact, as artifacts/STEP of `dvc repro`
    ROOT/RUN/report.html     the exit handler's page
    ROOT/mlflow.db           tracking and the model registry, unless MLFLOW_TRACKING_URI names another place
    ROOT/checkpoints         checkpoints of what is not finished; a later run with the same params goes on
                             from there

Kubeflow's runner enforces neither the profile's CPU and memory limits nor its timeouts here, and does without
its secrets: the caller's environment stands in for them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.params import resolved
from components.runtime.artifacts import remote_checkpoints as mirror
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.outputs import check_file, starts_with
from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError
from components.runtime.tables import columns
from components.runtime.tracking.mlflow_client import EXPERIMENT, connect
from pipelines.client.address import on_this_machine
from pipelines.compiler.compile import HEADER, as_text, compiled_documents, effective_params
from pipelines.compiler.placement import USER
from pipelines.compiler.places import refuse_unseen_places
from pipelines.compiler.profile import Profile, load_profile
from pipelines.exit_handler.report import REPORT
from pipelines.image_digests import load_images, no_images
from pipelines.lint.lint import refuse_faults
from pipelines.local.engines import Attempt, Docker, Engine, Host, in_place_of_docker
from pipelines.steps import ARTIFACT, FINISH, STEPS, Step
from pipelines.yaml_files import write_text

_PASSED_ON = ("AWS_", "HF_", "MLFLOW_", "ONLINEVPO_")
_ALSO_PASSED_ON = ("OMP_NUM_THREADS",)  # the number of threads may change the last bits of a result
_KEPT_BACK = ("HF_HOME", "ONLINEVPO_CACHE", "ONLINEVPO_CODE_VERSION")  # the image itself knows better
User = tuple[int, int]
"""Numbers of a user and a group."""
_STATES = {0: "done", GateRefused.exit_code: "refused", Interrupted.exit_code: "interrupted"}


@dataclass(frozen=True)
class Outcome:
    """What became of a step of a local run."""

    step: str
    state: str
    code: int
    reason: str
    attempts: tuple[Attempt, ...]
    path: Path
    digest: str = ""


def run_locally(
    params_file: str | Path | None,
    overrides: Sequence[str],
    runner: str,
    images: Path | None,
    profile: str,
    root: Path,
) -> None:
    """Run the compiled pipeline to its end and print what became of each step.

    What a step made is checked afterwards: no status is believed.

    Args:
        params_file: params, None for ./params.yaml or the defaults.
        overrides: "section.key=value" texts.
        runner: "docker" for the real images, "host" for this environment without containers.
        images: the images file, needed for docker.
        profile: name or file of the profile; its params count, and how often a step is retried.
        root: where everything is kept. Containers see this folder and no other: footage, prompts or models
            that the params name must lie in it, in the image, or at s3://.

    Raises:
        InputError: if any of these is wrong, or a step said so of its own.
        GateRefused: if a gate refused.
        Interrupted: if the run was stopped.
        OnlineVPOError: if a step failed, or ended well without leaving what it should have made.
    """
    root = root.resolve()
    check_file(root / "pipeline.yaml", "a compiled pipeline", starts_with(HEADER))
    chosen = _for_one_machine(load_profile(profile))
    if runner == "docker" and images is None:
        raise InputError("--images: needed by --runner docker; or run without containers: --runner host")
    params = effective_params(params_file, overrides, chosen)
    documents = compiled_documents(params, chosen, load_images(images) if images else no_images())
    refuse_faults(documents, "the compiled pipeline", cluster=False)
    text = as_text(documents)
    if runner == "docker":
        refuse_unseen_places(resolved(params), root)
        containers = Docker()
        engine: Engine = containers
        user = container_user(root, containers.rootless())
        write_text(root / "pipeline.yaml", text)
        environment = run_environment(root, user)
        arguments = container_arguments(root, environment, chosen, user)
    else:
        write_text(root / "pipeline.yaml", text)
        environment = run_environment(root)
        engine, arguments = Host(), {"environment": environment}
    stopped = False
    try:
        _run(text, root, engine, arguments)
    except KeyboardInterrupt:
        stopped = True
    if not engine.attempts:
        raise Interrupted() if stopped else OnlineVPOError("Kubeflow's local runner started no step")
    folder = engine.attempts[0].folder.parent
    outcomes = [outcome(step, engine.attempts, folder, stopped) for step in STEPS]
    page = folder / "report.html"
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(folder / FINISH / REPORT, page)
    print(table(outcomes, page, environment))
    conclude(outcomes, [a for a in engine.attempts if a.task == FINISH], page, stopped)


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


def outcome(step: Step, attempts: Sequence[Attempt], folder: Path, stopped: bool = False) -> Outcome:
    """What became of a step: what its last attempt said, and whether what it left bears that out.

    Of a run that was stopped from outside (``stopped``), the step that was at work may not have come to say
    so.
    """
    own = tuple(attempt for attempt in attempts if attempt.task == step.name)
    path = folder / step.name / ARTIFACT
    if not own:
        return Outcome(step.name, "not reached", 1, "", own, path)
    last = own[-1]
    if last.code != 0:
        state = _STATES.get(last.code, "failed")
        if stopped and state == "failed" and last is attempts[-1] and not last.last_line:
            return Outcome(step.name, "interrupted", Interrupted.exit_code, "stopped on request", own, path)
        return Outcome(step.name, state, last.code, last.last_line, own, path)
    try:
        artifact = open_artifact(path, step=step.name)
    except InputError as error:
        reason = f"it reported success, but its artifact cannot be used: {error}"
        return Outcome(step.name, "failed", 1, reason, own, path)
    return Outcome(step.name, "done", 0, "", own, path, artifact.manifest.digest)


def table(outcomes: Sequence[Outcome], report: Path, environment: dict[str, str]) -> str:
    """A line per step: what became of it, seconds, the start of its artifact's digest, where that lies."""
    rows = [("step", "state", "seconds", "digest", "artifact")]
    for one in outcomes:
        tries = f", {len(one.attempts)} attempts" if len(one.attempts) > 1 else ""
        seconds = f"{sum(a.seconds for a in one.attempts):.0f}" if one.attempts else ""
        place = str(_shown(one.path)) if one.state == "done" else ""
        rows.append((one.step, one.state + tries, seconds, one.digest[:12], place))
    ending = [f"report: {_shown(report)}"] if report.is_file() else []
    return "\n".join(
        [*columns(rows, left=(0, 1, 3, 4)), "", *ending, f"tracking: {environment['MLFLOW_TRACKING_URI']}"]
    )


def conclude(outcomes: Sequence[Outcome], finish: Sequence[Attempt], report: Path, stopped: bool) -> None:
    """Raise what the run's end stands for; nothing where it ended well.

    Args:
        outcomes: the steps' outcomes, in the order of the steps.
        finish: the attempts at the exit handler.
        report: the page that it should have left.
        stopped: whether the run was stopped from outside.
    """
    bad = next((one for one in outcomes if one.state not in ("done", "not reached")), None)
    if stopped:
        raise Interrupted(
            "stopped on request; the same command goes on from the last checkpoint of the step it was at"
        )
    if bad is not None:
        raise _error(bad)
    missed = next((one for one in outcomes if one.state == "not reached"), None)
    if missed is not None:
        raise OnlineVPOError(f"step {missed.step} was never run, though no step before it failed")
    if not finish or finish[-1].code != 0 or not report.is_file():
        said = finish[-1].last_line if finish else "it was never run"
        raise OnlineVPOError(f"the exit handler left no report: {said or 'it said nothing'}")


def _error(bad: Outcome) -> OnlineVPOError:
    for kind in (GateRefused, InputError, Interrupted):
        if bad.code == kind.exit_code:
            return kind(f"step {bad.step}: {bad.reason.removeprefix(f'{kind.label}: ')}")
    code = "" if bad.code == 1 else f" with exit code {bad.code}"
    return OnlineVPOError(f"step {bad.step} failed{code}: {bad.reason or 'it said nothing'}")


def _run(text: str, root: Path, engine: Engine, arguments: dict[str, Any]) -> None:
    """Run a compiled pipeline by kfp's local runner; how it went is to be read from `engine` and the disk."""
    from kfp import components, local

    with _kfp_settings(), in_place_of_docker(engine), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no effect in the current local runner")
        local.init(
            runner=local.DockerRunner(**arguments),
            pipeline_root=str(root),
            raise_on_error=False,
        )
        components.load_component_from_text(text)()


@contextmanager
def _kfp_settings() -> Iterator[None]:
    """Put back what `kfp.local.init` sets for the whole process."""
    from kfp.local.config import LocalExecutionConfig

    before = LocalExecutionConfig.instance
    try:
        yield
    finally:
        LocalExecutionConfig.instance = before


def _for_one_machine(profile: Profile) -> Profile:
    """The profile without pauses before a retry: on one machine there is no node to wait for.

    Raises:
        InputError: if a step needs several nodes.
    """
    names = [*(step.name for step in STEPS), FINISH]
    for name in names:
        nodes = profile.place(name).nodes
        if nodes > 1:
            raise InputError(
                f"profile `{profile.description}`: steps.{name}.nodes = {nodes}: must be 1 on one machine"
            )
    steps = {name: profile.place(name).model_copy(update={"retry_delay_seconds": 0}) for name in names}
    return profile.model_copy(update={"steps": steps})


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
    return [root / name for name in ("mlflow.db", "mlruns", "checkpoints")]


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


def _shown(path: Path) -> Path:
    """A path as a person in the current folder would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
