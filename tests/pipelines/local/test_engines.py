"""What stands in for Kubeflow's way of starting a container: exit codes read before they are lost."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from components.runtime.errors import InputError
from pipelines.local import engines as containers
from pipelines.local.engines import DockerEngine, HostEngine, find_image

IMAGE = f"registry.example/onlinevpo-data@sha256:{'a' * 64}"


def command(folder: Path, program: str) -> list[str]:
    """A container's command that is asked for one output, `artifact`."""
    given = {
        "outputs": {
            "artifacts": {"artifact": {"artifacts": [{"uri": str(folder / "artifact")}]}},
            "outputFile": str(folder / "executor_output.json"),
        }
    }
    return ["python", "-c", program, "--executor-input", json.dumps(given)]


def made(folder: Path) -> str:
    """A program that makes what `command` asks for."""
    said = json.dumps({"artifacts": {"artifact": {"artifacts": [{"name": "artifact"}]}}})
    return (
        f"import pathlib; folder = pathlib.Path({str(folder)!r}); (folder / 'artifact').mkdir(parents=True); "
        f"(folder / 'executor_output.json').write_text({said!r}); "
    )


@dataclass
class Container:
    """A container as the Docker SDK shows it; it ends with `code` after it wrote `output`."""

    code: int = 0
    output: list[bytes | BaseException] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    refused: str = ""

    def logs(self, stream: bool = False, follow: bool = False, tail: int = 0) -> Any:
        def pieces() -> Iterator[bytes]:
            for piece in self.output:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece

        return pieces() if stream else b"interrupted: its last word\n"

    def start(self) -> None:
        self.calls.append("start")
        if self.refused:
            raise docker.errors.APIError("500", explanation=f"runc: {self.refused}\n")

    def wait(self) -> dict[str, int]:
        self.calls.append("wait")
        return {"StatusCode": self.code}

    def stop(self, timeout: int) -> None:
        self.calls.append("stop")
        self.code = 75

    def remove(self, force: bool) -> None:
        self.calls.append("remove")


@dataclass
class Image:
    id: str
    attrs: dict[str, Any] = field(default_factory=dict)


class Client:
    """As much of the Docker SDK's client as is used."""

    def __init__(self, container: Container | None = None) -> None:
        self.container = container or Container()
        self.created: dict[str, Any] = {}
        self.known: dict[str, Image] = {IMAGE: Image("sha256:1")}
        self.listed: list[Image] = []
        self.fetchable: dict[str, Image] = {}
        self.images = self.containers = self

    def ping(self) -> bool:
        return True

    def info(self) -> dict[str, Any]:
        return {"SecurityOptions": ["name=seccomp", "name=rootless"]}

    def get(self, name: str) -> Image:
        if name not in self.known:
            raise docker.errors.ImageNotFound("no such image")
        return self.known[name]

    def list(self) -> list[Image]:
        return self.listed

    def pull(self, name: str) -> Image:
        if name not in self.fetchable:
            raise docker.errors.APIError("pull access denied", explanation="no\nsuch host")
        return self.fetchable[name]

    def create(self, **arguments: Any) -> Container:
        self.created = arguments
        return self.container


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> DockerEngine:
    client = Client()
    monkeypatch.setattr(docker, "from_env", lambda **options: client)
    return DockerEngine()


def test_host_runs_the_command_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host, folder = HostEngine(), tmp_path / "corpus"
    program = (
        made(folder)
        + "import os, sys; print(sys.executable, os.environ['WHO'], flush=True); "
        + ("sys.stderr.write('to stderr\\n\\n')")
    )
    code = host(host.client(), IMAGE, command(folder, program), {}, environment={"WHO": "me"})
    assert code == 0
    assert capsys.readouterr().out == f"{sys.executable} me\nto stderr\n\n"
    (attempt,) = host.attempts
    assert (attempt.task, attempt.code, attempt.last_line) == ("corpus", 0, "to stderr")
    assert attempt.seconds > 0


@pytest.mark.parametrize(
    ("program", "code", "line"),
    [
        ("import sys; sys.exit('error: bad')", 1, "error: bad"),
        ("import sys; print('refused: no', file=sys.stderr); sys.exit(3)", 3, "refused: no"),
        ("pass", 1, "it reported success, but {folder}/executor_output.json: No such file or directory"),
    ],
)
def test_host_tells_how_a_command_ended(tmp_path: Path, program: str, code: int, line: str) -> None:
    host = HostEngine()
    assert host(host.client(), IMAGE, command(tmp_path, program), {}) == code
    assert host.attempts[0].last_line == line.format(folder=tmp_path)


def test_success_without_outputs_is_none(tmp_path: Path) -> None:
    host = HostEngine()
    said = tmp_path / "executor_output.json"
    program = made(tmp_path) + "(folder / 'artifact').rmdir()"
    assert host(host.client(), IMAGE, command(tmp_path, program), {}) == 1
    assert host.attempts[-1].last_line.endswith(f"output artifact is not there: {tmp_path}/artifact")
    assert host(host.client(), IMAGE, command(tmp_path, f"open({str(said)!r}, 'w').write('{{}}')"), {}) == 1
    assert host.attempts[-1].last_line.endswith("does not speak of output artifact")
    # What an earlier attempt said does not speak for this one.
    program = made(tmp_path)
    assert host(host.client(), IMAGE, command(tmp_path, program), {}) == 0
    assert host(host.client(), IMAGE, command(tmp_path, "pass"), {}) == 1


def test_containers_exit_code_is_read_before_it_is_removed(
    engine: DockerEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = engine.client()
    client.container = Container(3, [b"corpus: half a li", b"ne\nrefused: ", b"no\n\n"])
    arguments = {"environment": {"A": "b"}, "read_only": True}
    words = command(tmp_path, "pass")
    assert engine(client=client, image=IMAGE, command=words, volumes={"/r": {}}, **arguments) == 3
    assert client.created["image"] == "sha256:1"
    assert client.created["read_only"] is True and "auto_remove" not in client.created
    assert client.created["command"] == words
    assert client.container.calls == ["start", "wait", "remove"]
    assert capsys.readouterr().out == "corpus: half a line\nrefused: no\n\n"
    assert engine.attempts[0].last_line == "refused: no"


def test_an_interrupt_reaches_the_container(engine: DockerEngine, tmp_path: Path) -> None:
    client = engine.client()
    client.container = Container(0, [b"at work\n", KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        engine(client, IMAGE, command(tmp_path, "pass"), {})
    assert client.container.calls == ["start", "stop", "wait", "remove"]
    (attempt,) = engine.attempts
    assert (attempt.code, attempt.last_line) == (75, "interrupted: its last word")


def test_a_container_that_cannot_be_started_is_removed(engine: DockerEngine, tmp_path: Path) -> None:
    client = engine.client()
    client.container = Container(refused="not permitted")
    with pytest.raises(InputError, match="cannot start a container: runc: not permitted"):
        engine(client, IMAGE, command(tmp_path, "pass"), {})
    assert client.container.calls == ["start", "remove"]


def test_images_are_found_by_digest() -> None:
    client = Client()
    assert find_image(client, IMAGE) == "sha256:1"
    client.known.clear()
    client.listed = [Image("sha256:0"), Image("sha256:2", {"RepoDigests": [IMAGE]})]
    assert find_image(client, IMAGE) == "sha256:2"
    client.listed.clear()
    with pytest.raises(InputError, match=r"not on this machine and cannot be fetched \(no such host\)"):
        find_image(client, IMAGE)
    client.fetchable = {IMAGE: Image("sha256:3")}
    assert find_image(client, IMAGE) == "sha256:3"


def test_no_engine_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(InputError, match=r"no container engine answers at unix://.*none\.sock") as caught:
        DockerEngine()
    assert "--runner host" in str(caught.value) and "\n" not in str(caught.value)


def test_lines_come_whole_from_any_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    text = "über\r\nzwei\n\ndrei".encode()
    pieces = [text[i : i + 1] for i in range(len(text))]
    assert containers._print_lines(pieces) == "drei"
    assert capsys.readouterr().out == "über\nzwei\n\ndrei\n"
    assert containers._print_lines([]) == ""


def test_a_command_of_another_pipeline() -> None:
    with pytest.raises(ValueError, match="has no --executor-input: ls -l"):
        HostEngine()(None, IMAGE, ["ls", "-l"], {})


def test_the_callers_path_is_kept(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    host = HostEngine()
    host(host.client(), IMAGE, command(tmp_path, "import os; print(os.environ['PYTHONPATH'])"), {})
    assert capsys.readouterr().out.splitlines()[0] == f"{repository}{os.pathsep}/somewhere"
