"""What stands in for Kubeflow's way of starting a container on one machine.

`kfp.local.DockerRunner` removes a container as soon as it ends and takes one whose exit code it then cannot
read for a success. Here the exit code is read first; and where no container is wanted, its command runs in
this environment instead.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from components.runtime.errors import InputError, one_line
from pipelines.container.executor_io import ExecutorInput, read_output
from pipelines.container.supervise import end_with_parent

#: Seconds that an interrupted step has to save its checkpoint.
GRACE_S = 120
# Following a container's log, podman sends not even a header before the first line, and a step may be silent
# for long; docker's client would give up after a minute.
_PATIENCE_S = 7 * 24 * 3600


@dataclass(frozen=True)
class Attempt:
    """One container: the folder its task's outputs go to, its exit code, seconds, the last line it wrote."""

    folder: Path
    code: int
    seconds: float
    last_line: str

    @property
    def task(self) -> str:
        """Name of the task: a step's, or `finish`."""
        return self.folder.name


@dataclass
class Ending:
    """How a container ended, as far as that is known."""

    code: int = 1
    last_line: str = ""


class ContainerEngine(ABC):
    """Starts the containers of a local run, and remembers how each ended."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def __call__(
        self, client: Any, image: str, command: Sequence[str], volumes: Mapping[str, Any], **arguments: Any
    ) -> int:
        """In place of kfp's `run_docker_container`: run a container to its end, its output on stdout.

        Returns its exit code; 1 if it said 0 and did not make what it was asked for. kfp would pass that on
        as a success, and fall over it in the next task.
        """
        given = executor_input(command)
        with contextlib.suppress(FileNotFoundError):
            given.output_file.unlink()
        began, ending = time.monotonic(), Ending()
        try:
            self.start(image, command, {"volumes": dict(volumes), **arguments}, ending)
            if ending.code == 0:
                missing = missing_outputs(given)
                if missing:
                    ending.code, ending.last_line = 1, f"it reported success, but {missing}"
                    print(ending.last_line, flush=True)
        finally:
            seconds = time.monotonic() - began
            folder = given.output_file.parent
            self.attempts.append(Attempt(folder, ending.code, seconds, ending.last_line))
        return ending.code

    @abstractmethod
    def client(self) -> Any:
        """What kfp takes for the Docker client."""

    @abstractmethod
    def start(self, image: str, command: Sequence[str], arguments: Mapping[str, Any], ending: Ending) -> None:
        """Run a container to its end and fill in `ending`, also where it is stopped by an exception."""


class HostEngine(ContainerEngine):
    """Runs each container's command in this environment, as it is."""

    def client(self) -> Any:
        return SimpleNamespace(info=dict, close=lambda: None)  # what kfp asks a Docker client for

    def start(self, image: str, command: Sequence[str], arguments: Mapping[str, Any], ending: Ending) -> None:
        """Run the command, `python` being the interpreter of this process, and print its output as it comes.

        Raises:
            KeyboardInterrupt: if it came to this process; the command was told, and has ended.
        """
        words = [sys.executable if word == "python" else word for word in command[:1]] + list(command[1:])
        environment = dict(os.environ) | dict(arguments.get("environment") or {})
        here = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, environment.get("PYTHONPATH"))))
        # In a session of its own, because a terminal's Ctrl-C would reach it beside the signal sent below.
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        assert process.stdout is not None
        with process.stdout as output:
            chunks = iter(lambda: os.read(output.fileno(), 65_536), b"")
            try:
                ending.last_line = _print_lines(chunks)
                ending.code = process.wait()
            except BaseException:
                process.terminate()
                killer = threading.Timer(GRACE_S, process.kill)
                killer.start()
                try:
                    ending.last_line = _print_lines(chunks)
                    ending.code = process.wait()
                finally:
                    killer.cancel()
                    process.kill()
                raise


class DockerEngine(ContainerEngine):
    """Runs containers by the Docker API that DOCKER_HOST names: Docker's or Podman's."""

    def __init__(self) -> None:
        super().__init__()
        self._client = _connected()

    def client(self) -> Any:
        return self._client

    def rootless(self) -> bool:
        """Whether the engine runs as the calling user, who is then root in its containers."""
        return "name=rootless" in (self._client.info().get("SecurityOptions") or [])

    def start(self, image: str, command: Sequence[str], arguments: Mapping[str, Any], ending: Ending) -> None:
        """Run the container and print its output as it comes; it is removed after its exit code was read.

        Raises:
            InputError: if there is no such image, or the engine cannot start the container.
            KeyboardInterrupt: if it came to this process; the container was told, and has ended.
        """
        known = find_image(self._client, image)
        with _refusals("make"):
            container = self._client.containers.create(image=known, command=list(command), **arguments)
        try:
            with _refusals("start"):
                container.start()
            ending.last_line = _print_lines(container.logs(stream=True, follow=True))
            ending.code = int(container.wait()["StatusCode"])
        except KeyboardInterrupt:
            container.stop(timeout=GRACE_S)
            ending.code = int(container.wait()["StatusCode"])
            ending.last_line = _print_lines([container.logs(tail=20)])
            raise
        finally:
            container.remove(force=True)


def find_image(client: Any, image: str) -> str:
    """What the engine calls `image`; it is fetched if the engine does not have it.

    Raises:
        InputError: if there is no such image.
    """
    from docker.errors import APIError, ImageNotFound

    with contextlib.suppress(ImageNotFound):
        return str(client.images.get(image).id)
    # An image that was built here and never pushed is known by its digest to some engines only in the list.
    for known in client.images.list():
        if image in (known.attrs.get("RepoDigests") or []):
            return str(known.id)
    try:
        print(f"fetching {image}", flush=True)
        return str(client.images.pull(image).id)
    except APIError as error:
        raise InputError(
            f"image {image}: not on this machine and cannot be fetched ({_message(error)}); build it first"
        ) from None


def executor_input(command: Sequence[str]) -> ExecutorInput:
    """What a container of the pipeline is given, read from its command.

    Raises:
        ValueError: if the command has no ExecutorInput.
    """
    for option, value in itertools.pairwise(command):
        if option == "--executor-input":
            return ExecutorInput.parse(value)
    raise ValueError(f"not a command of this pipeline, it has no --executor-input: {' '.join(command)[:200]}")


def missing_outputs(given: ExecutorInput) -> str:
    """What is missing of the outputs that a container was asked for, in words; "" if nothing is."""
    try:
        made = read_output(given.output_file)
    except InputError as error:
        return str(error)
    for name, asked in given.outputs.items():
        if name not in made:
            return f"{given.output_file} does not speak of output {name}"
        if not asked.path.exists():
            return f"output {name} is not there: {asked.path}"
    return ""


def _print_lines(chunks: Iterable[bytes]) -> str:
    """Print bytes that come in any pieces, line by line as they come; returns the last line with a text."""
    rest, last = b"", ""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            last = _print_line(line) or last
    return _print_line(rest) or last if rest else last


def _print_line(line: bytes) -> str:
    text = line.decode(errors="replace").rstrip("\r")
    print(text, flush=True)
    return text.strip()


@contextmanager
def _refusals(action: str) -> Iterator[None]:
    """The engine's errors within the block as InputError."""
    from docker.errors import APIError

    try:
        yield
    except APIError as error:
        raise InputError(f"the container engine cannot {action} a container: {_message(error)}") from None


def _message(error: Any) -> str:
    return one_line(error.explanation or error)


def _connected() -> Any:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=_PATIENCE_S)
        client.ping()
    except DockerException as error:
        where = os.environ.get("DOCKER_HOST") or "the default socket"
        reason = one_line(error)
        raise InputError(
            f"no container engine answers at {where} ({reason}); start Docker or `podman system service` and "
            "set DOCKER_HOST, or run without containers: --runner host"
        ) from None
    return client
