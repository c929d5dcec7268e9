"""The stack's credentials and ports: made on first use, kept in files that only their owner may read."""

from __future__ import annotations

import re
import secrets
import shlex
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.runtime.artifacts.outputs import never
from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file

CLIENT, SERVER = "env", "server.env"
"""What steps and people need, to be sourced by a shell; what only the servers need."""
BUCKET = "onlinevpo"
# What is on this machine is never asked through a proxy; whatever else the shell exempts stays exempt. Both
# spellings, because the small one wins where a program knows both.
_DIRECT = (
    'no_proxy="127.0.0.1,localhost${no_proxy:+,$no_proxy}${NO_PROXY:+,$NO_PROXY}"',
    'NO_PROXY="$no_proxy"',
)
_LINE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")


def settings(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The client's and the server's variables; both files are made where there are none.

    The client's file also exempts this machine from the shell's proxy; these two lines are for a shell and no
    variables here.

    Raises:
        InputError: others may read a file, or it is damaged; the folder holds something else.
    """
    never(folder)
    held = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    if CLIENT not in held and any(not name.startswith((f".{CLIENT}.", f".{SERVER}.")) for name in held):
        raise InputError(f"--folder {folder}: not empty, and not of an earlier stack; name a new folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    client_file, server_file = folder / CLIENT, folder / SERVER
    if not client_file.exists():
        store, tracking = _free_ports()
        _write(
            client_file,
            {
                "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
                "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
                "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{store}",
                "AWS_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{store}",
                "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{tracking}",
                "MLFLOW_TRACKING_USERNAME": "pipeline",
                "MLFLOW_TRACKING_PASSWORD": secrets.token_hex(16),
            },
            _DIRECT,
        )
    elif not set(_DIRECT) <= set(client_file.read_text(encoding="utf-8").splitlines()):
        _write(client_file, read(client_file), _DIRECT)  # made by an earlier version
    if not server_file.exists():
        _write(
            server_file,
            {
                "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
                "MLFLOW_AUTH_ADMIN_PASSWORD": secrets.token_hex(16),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
            },
        )
    return read(client_file), read(server_file)


def read(file: Path) -> dict[str, str]:
    """The variables of a file of ours.

    Raises:
        InputError: it is missing, others may read it, or a line of it is no assignment.
    """
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}; `make stack` makes it") from error
    if mode & 0o077:
        raise InputError(f"{file}: holds passwords, and others may read it (mode {mode:o}); chmod 600 {file}")
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line in _DIRECT:
            continue
        parsed = _LINE.fullmatch(line)
        words = _words(parsed[2]) if parsed else []
        if parsed is None or len(words) != 1:
            raise InputError(
                f"{file}, line {number}: must be NAME=value; remove the file to have it made anew"
            )
        found[parsed[1]] = words[0]
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _write(file: Path, values: Mapping[str, str], last: Sequence[str] = ()) -> None:
    """Write a file that appears whole, and never, not even for a moment, readable by others."""
    lines = [*(f"{name}={shlex.quote(value)}" for name, value in values.items()), *last]
    with atomic_file(file, mode=0o600) as aside:
        aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _free_ports() -> tuple[int, int]:
    """Two ports that nothing listens on now; the stack keeps them, so that addresses stay the same."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])
