"""What the build tells an engine, and the images file it writes. A script stands in for the engine."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.runtime.errors import InputError
from images.build import Build, build_images, revision
from images.catalogue import CONTAINERFILE, ROOT
from images.engines import BuildEngine, BuildError, repository
from images.wheelhouse import fill
from pipelines.compiler.image_digests import load_images
from pipelines.steps import FAMILIES

#: Answers as the real engines do, and writes down what it was asked.
STAND_IN = """#!{python}
import json, os, pathlib, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
name = arguments[-1].rsplit(":", 1)[0]
pinned = name + "@sha256:" + format(sum(name.encode()), "064x")
if {fails!r} and {fails!r} in " ".join(arguments):
    sys.exit("no space left")
if "--digestfile" in arguments:
    pathlib.Path(arguments[arguments.index("--digestfile") + 1]).write_text("sha256:" + "f" * 64)
elif arguments[:2] == ["images", "--json"]:
    print(json.dumps([{{"size": "1 MB"}}]))
elif "{{{{json .RepoDigests}}}}" in arguments:
    print(json.dumps(["other/name@sha256:" + "0" * 64, pinned] if {digests!r} else []))
elif "{{{{.FromImageDigest}}}}" in arguments:
    print(pinned.split("@")[1])
elif "{{{{.Size}}}}" in arguments:
    print(1000000)
"""


class StandIn:
    """The engines' names in PATH, all of them a script of ours."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.log = folder / "bin", folder / "log"
        self.folder.mkdir()
        monkeypatch.setenv("PATH", f"{self.folder}{os.pathsep}{os.environ['PATH']}")
        self.answers()

    def answers(self, fails: str = "", digests: bool = True) -> None:
        for name in ("docker", "podman", "buildah"):
            file = self.folder / name
            file.write_text(
                STAND_IN.format(python=sys.executable, log=str(self.log), fails=fails, digests=digests)
            )
            file.chmod(0o755)

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def builds(self) -> list[list[str]]:
        return [call for call in self.calls() if "build" in call[:2]]


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    for name in ("PIP_CERT", "PIP_INDEX_URL", "TORCH_INDEX", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    return StandIn(tmp_path, monkeypatch)


def settings(engine: object = "podman", **changes: object) -> Build:
    given: dict[str, object] = {
        "engine": engine, "variant": "cpu", "tag": "t", "push": None, "base_image": "python:x",
        "wheelhouse": None, "index": None, "torch_index": None, "extra": (),
    }  # fmt: skip
    return Build(**(given | changes))  # type: ignore[arg-type]


def options(call: list[str], name: str) -> list[str]:
    return [value for option, value in itertools.pairwise(call) if option == name]


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_all_families(engines: StandIn, engine: str, tmp_path: Path) -> None:
    built = build_images(settings(engine), (), tmp_path / "images.yaml")
    assert set(built) == set(FAMILIES)
    assert load_images(tmp_path / "images.yaml").model_dump() == built
    prefix = "" if engine == "docker" else "localhost/"
    assert all(built[f].startswith(f"{prefix}onlinevpo-{f}@sha256:") for f in FAMILIES)
    assert [options(call, "--target") for call in engines.builds()] == [[family] for family in FAMILIES]
    for call, family in zip(engines.builds(), FAMILIES, strict=True):
        assert call[-1] == str(ROOT) and options(call, "--file") == [str(ROOT / CONTAINERFILE)]
        arguments = dict(entry.split("=", 1) for entry in options(call, "--build-arg"))
        labels = dict(entry.split("=", 1) for entry in options(call, "--label"))
        assert arguments.keys() - {"SOURCE_DATE_EPOCH"} == {"BASE_IMAGE", "REVISION", "VARIANT"}
        assert arguments["BASE_IMAGE"] == "python:x" and arguments["VARIANT"] == "cpu"
        wanted = ("title", "description", "licenses", "version", "revision", "created")
        assert labels.keys() == {f"org.opencontainers.image.{name}" for name in wanted}
        assert all(labels.values()) and labels["org.opencontainers.image.title"] == f"onlinevpo-{family}"
        assert labels["org.opencontainers.image.revision"] == arguments["REVISION"]
        assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
        assert "--build-context" not in call
    times = {"docker": "SOURCE_DATE_EPOCH=", "podman": "--timestamp", "buildah": "--timestamp"}
    assert all(any(word.startswith(times[engine]) for word in call) for call in engines.builds())


def test_what_the_person_says_reaches_the_build(engines: StandIn, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    changes: dict[str, object] = {
        "variant": "cuda", "wheelhouse": wheels, "index": "https://index.example/simple",
        "torch_index": "/wheels", "extra": ("--isolation=chroot", "--volume=/a:/a"),
    }  # fmt: skip
    build_images(settings("podman", **changes), ("data",), tmp_path / "images.yaml")
    (call,) = engines.builds()
    wanted = {"VARIANT=cuda", "PIP_INDEX_URL=https://index.example/simple", "TORCH_INDEX=/wheels"}
    assert wanted <= set(options(call, "--build-arg"))
    assert options(call, "--build-context") == [f"wheelhouse={wheels}"]
    assert call[-3:-1] == ["--isolation=chroot", "--volume=/a:/a"]


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_what_was_pushed_is_named_as_the_registry_knows_it(
    engines: StandIn, engine: str, tmp_path: Path
) -> None:
    build_images(settings(engine, push="registry.example/team/"), ("control",), tmp_path / "images.yaml")
    line = (tmp_path / "images.yaml").read_text().strip()
    assert line.startswith("control: registry.example/team/onlinevpo-control@sha256:")
    assert line.endswith("f" * 64) == (engine != "docker")
    pushed = [call[-1] for call in engines.calls() if "push" in call]
    assert pushed == ["registry.example/team/onlinevpo-control:t"], "its stages need not be pushed"


def test_families_that_are_not_built_keep_their_line(engines: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "images.yaml"
    build_images(settings(), (), file)
    before = load_images(file).model_dump()
    build_images(settings(push="registry.example"), ("model",), file)
    after = load_images(file).model_dump()
    assert {name for name in FAMILIES if before[name] != after[name]} == {"model"}


def test_a_failed_build_leaves_the_images_file_as_it_was(engines: StandIn, tmp_path: Path) -> None:
    engines.answers(fails="--target evaluation")
    with pytest.raises(BuildError, match="podman build"):
        build_images(settings(), (), tmp_path / "images.yaml")
    assert not (tmp_path / "images.yaml").exists()


def test_a_store_that_gives_no_digest_is_said_so(engines: StandIn, tmp_path: Path) -> None:
    engines.answers(digests=False)
    with pytest.raises(BuildError, match="--push"):
        build_images(settings("docker"), ("control",), tmp_path / "images.yaml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "--engine", "kaniko"], "--engine kaniko: must be one of docker, podman, buildah"),
        (["build", "--family", "reward"], "--family reward: must be one of data, model, evaluation, control"),
        (["build", "--variant", "rocm"], "--variant rocm: must be one of cpu, cuda"),
        (["build", "--wheelhouse", "nowhere"], "--wheelhouse nowhere: no such folder"),
        (["wheelhouse", "--to", "w", "--family", "x"], "--family x: must be one of"),
    ],
)
def test_bad_input(engines: StandIn, arguments: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "images", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().startswith(f"error: {said}")


def test_a_file_that_is_no_images_file_is_not_overwritten(engines: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("run: {seed: 0}\n")
    with pytest.raises(InputError, match="not an images file"):
        build_images(settings(), (), file)
    assert file.read_text() == "run: {seed: 0}\n"


def test_the_engine_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="--engine podman: not installed"):
        BuildEngine.found("podman")


def test_a_wheelhouse_is_filled_on_the_images_own_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(InputError, match=r"filled on Linux x86_64 with Python 3\.11"):
        fill(tmp_path / "w", (), "cpu", None)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("registry.example:5000/team/x:1", "registry.example:5000/team/x"),
        ("x:1", "x"),
        ("localhost/x@sha256:00", "localhost/x"),
        ("x", "x"),
    ],
)
def test_repository(reference: str, name: str) -> None:
    assert repository(reference) == name


def test_an_image_has_the_revision_of_its_own_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)

    def commit(file: str, text: str, when: int) -> None:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
        told = {"GIT_AUTHOR_DATE": f"{when} +0000", "GIT_COMMITTER_DATE": f"{when} +0000"}
        identity = ["-c", "user.name=a", "-c", "user.email=a@example"]
        for words in (["add", "-A"], [*identity, "commit", "-qm", "x"]):
            command = ["git", "-C", str(tmp_path), *words]
            subprocess.run(command, check=True, env={**os.environ, **told})

    assert revision(("a",), tmp_path).commit == "unknown"
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    commit("components/a/x.py", "1", 1_000_000_000)
    first = revision(("components/a",), tmp_path)
    assert (first.epoch, first.created) == (1_000_000_000, "2001-09-09T01:46:40Z")
    commit("elsewhere", "2", 1_100_000_000)
    commit("components/a/README.md", "3", 1_200_000_000)
    assert revision(("components/a",), tmp_path) == first
    assert revision((), tmp_path).commit != first.commit
    (tmp_path / "elsewhere").write_text("4")
    assert revision(("components/a",), tmp_path) == first
    (tmp_path / "components/a/new.py").write_text("5")
    assert revision(("components/a",), tmp_path).commit == f"{first.commit}-dirty"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    assert revision(("components/a",), tmp_path).epoch == 7
