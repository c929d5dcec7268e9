"""Each image by itself: its user, what it may write, what is in it and what is not, its size."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from images.catalogue import ROOT
from images.lock import entries
from pipelines.steps import FAMILIES, STEPS
from tests.containers.conftest import Run

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

HELP = [(step.family, f"components.{step.name}") for step in STEPS]
HELP += [(family, "pipelines.container.entrypoint") for family in FAMILIES]
HELP += [("control", "pipelines.exit_handler.report"), ("control", "pipelines.trainjob")]
TINY_CORPUS = (
    "corpus.world_clips.train=6", "corpus.world_clips.val=3", "corpus.world_clips.test=3",
    "corpus.footage_clips.train=6", "corpus.footage_clips.val=3", "corpus.footage_clips.test=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def configs(client: Any, images: Mapping[str, str]) -> Mapping[str, Mapping[str, Any]]:
    """What the engine says of each family's image."""
    return {family: client.images.get(images[family]).attrs for family in FAMILIES}


@pytest.mark.parametrize(("family", "module"), HELP)
def test_help(run: Run, family: str, module: str) -> None:
    ended = run(family, ["python", "-m", module, "--help"])
    assert ended.code == 0, ended.output
    assert "Usage:" in ended.output


@pytest.mark.parametrize("family", FAMILIES)
def test_it_runs_as_an_unprivileged_user_who_owns_nothing(run: Run, family: str, configs: Any) -> None:
    assert configs[family]["Config"]["User"] == "10001:10001"
    assert not configs[family]["Config"].get("Entrypoint")
    # Without --read-only, to see that it is the file's owner and mode that forbid it.
    script = (
        "id -u; id -g; touch /cache/a /tmp/a && echo cache and tmp are writable;"
        "find / -xdev -writable -not -path '/proc/*' -not -type l 2> /dev/null | sort"
    )
    ended = run(family, ["sh", "-c", script])
    lines = ended.output.splitlines()
    assert lines[:3] == ["10001", "10001", "cache and tmp are writable"]
    ours = [line for line in lines[3:] if line.startswith(("/app", "/opt", "/usr", "/etc", "/var/lib"))]
    assert ours == []


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_can_be_installed(run: Run, family: str) -> None:
    script = f"""
import importlib.util, shutil
absent = ["pip", "setuptools", "kfp", "pytest", "uv"] + (["torch"] if {family!r} == "control" else [])
print([name for name in absent if importlib.util.find_spec(name)], shutil.which("pip"), shutil.which("gcc"))
"""
    assert run(family, ["python", "-c", script]).output.strip() == "[] None None"


@pytest.mark.parametrize("family", FAMILIES)
def test_versions_are_the_locked_ones(run: Run, family: str) -> None:
    locks = {
        "data": ("compute-cpu", "data"),
        "model": ("compute-cpu", "generation", "model"),
        "evaluation": ("compute-cpu", "generation"),
        "control": ("control",),
    }[family]
    wanted = {}
    for lock in locks:
        for name, entry in entries((ROOT / f"images/locks/{lock}.txt").read_text()).items():
            wanted[name] = entry.split("==")[1].split()[0]
    script = (
        "import importlib.metadata as m, json, re;"
        "print(json.dumps({re.sub('[-_.]+', '-', d.name).lower(): d.version for d in m.distributions()}))"
    )
    assert json.loads(run(family, ["python", "-c", script]).output) == wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_say_what_it_is_and_where_it_comes_from(configs: Any, family: str) -> None:
    config = configs[family]["Config"]
    labels = {k.removeprefix("org.opencontainers.image."): v for k, v in config["Labels"].items()}
    assert labels["title"] == f"onlinevpo-{family}"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["description"] and labels["version"] and labels["created"].endswith("Z")
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert environment["ONLINEVPO_CODE_VERSION"] == labels["revision"] != ""
    assert not [name for name in environment if name.startswith("PIP_")], "settings of the build stay out"


def test_the_layer_of_torch_exists_once(configs: Any) -> None:
    layers = {family: configs[family]["RootFS"]["Layers"] for family in FAMILIES}
    shared = set.intersection(*(set(layers[family]) for family in ("data", "model", "evaluation")))
    of_control = set(layers["control"])
    assert shared - of_control, "compute's own layers are in all three"
    assert shared & of_control, "and the base's in all four"


def test_sizes(configs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\n\nimage        MB unpacked")
        for family in FAMILIES:
            print(f"{family:<12} {configs[family]['Size'] / 1e6:11.0f}")
    assert configs["control"]["Size"] < 0.4 * configs["data"]["Size"]


def test_a_real_step_makes_what_it_makes_here(run: Run, tmp_path: Path) -> None:
    """The corpus step on a read-only root without network, and on this machine: the same bytes."""
    flags = [part for setting in TINY_CORPUS for part in ("--set", setting)]
    command = ["-m", "components.corpus", "run", *flags, "--out"]
    script = f"""
import subprocess, sys
done = subprocess.run([sys.executable, *{command!r}, "/cache/corpus"], stdout=sys.stderr)
from components.runtime.artifacts.artifact import open_artifact
print("digest", open_artifact("/cache/corpus", step="corpus").manifest.digest)
raise SystemExit(done.returncode)
"""
    ended = run("data", ["python", "-c", script], environment={"ONLINEVPO_TRACKING": "off"})
    assert ended.code == 0, ended.output
    subprocess.run([sys.executable, *command, str(tmp_path / "corpus")], check=True, cwd=ROOT)
    from components.runtime.artifacts.artifact import open_artifact

    here = open_artifact(tmp_path / "corpus", step="corpus").manifest.digest
    assert f"digest {here}" in ended.output.splitlines()
