"""What the Containerfiles say, read as text: nothing is built here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.catalogue import IMAGES, ROOT, Image, chain, instructions, sources
from pipelines.steps import FAMILIES, STEPS

FAMILY_IMAGES = [image for image in IMAGES if image.name in FAMILIES]
#: What a family's containers are started with, besides the steps.
PROGRAMS = {
    "data": ("pipelines.container.entrypoint",),
    "model": ("pipelines.container.entrypoint", "pipelines.trainjob.torchrun"),
    "evaluation": ("pipelines.container.entrypoint",),
    "control": ("pipelines.container.entrypoint", "pipelines.exit_handler.report", "pipelines.trainjob"),
}


def read(image: Image) -> list[list[str]]:
    return instructions((ROOT / image.containerfile).read_text())


def last_stage(image: Image) -> list[list[str]]:
    found = read(image)
    start = max(i for i, (name, *_) in enumerate(found) if name == "FROM")
    return found[start:]


def copied(image: Image) -> set[Path]:
    """Files of the repository that are in an image's own /app."""
    files: set[Path] = set()
    for source in sources(image, "cpu"):
        path = ROOT / source
        files.update([path] if path.is_file() else (p for p in path.rglob("*") if p.is_file()))
    return files


def imported(module: str, seen: set[Path] | None = None) -> set[Path]:
    """The project's files that importing `module`, and calling any of its functions, may import."""
    seen = set() if seen is None else seen
    for path in files_of(module):
        if path in seen:
            continue
        seen.add(path)
        for name in names_imported(path):
            imported(name, seen)
    return seen


def files_of(module: str) -> Iterator[Path]:
    """A dotted name's file and the __init__ of each package above it; nothing if it is no module of ours."""
    parts = module.split(".")
    if parts[0] not in ("components", "pipelines", "images"):
        return
    for depth in range(1, len(parts) + 1):
        base = ROOT.joinpath(*parts[:depth])
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path.is_file():
                yield path


def names_imported(path: Path) -> Iterator[str]:
    typing_only: set[ast.AST] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only.update(child for part in node.body for child in ast.walk(part))
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # `step_app` takes its function as "package.module:function"
            match = re.fullmatch(r"((?:components|pipelines)\.[\w.]+):\w+", node.value)
            if match:
                yield match[1]


def test_every_family_has_an_image() -> None:
    assert {image.name for image in FAMILY_IMAGES} == set(FAMILIES) == set(PROGRAMS)
    assert {path.parent.name for path in (ROOT / "images").glob("*/Containerfile")} == {
        i.name for i in IMAGES
    }


def test_a_chain_starts_at_the_base_and_holds_parents_before_children() -> None:
    assert [image.name for image in chain(("model",))] == ["base", "compute", "generation", "model"]
    assert [image.name for image in chain(("control",))] == ["base", "control"]
    assert [image.name for image in chain(("services",))] == ["base", "services"]
    assert set(IMAGES) - set(chain(())) == {i for i in IMAGES if i.name == "services"}


@pytest.mark.parametrize("image", IMAGES, ids=lambda i: i.name)
def test_the_last_user_is_the_unprivileged_one(image: Image) -> None:
    users = [words for name, *words in last_stage(image) if name == "USER"]
    assert users[-1] == ["10001:10001"]
    after = last_stage(image)[last_stage(image).index(["USER", "10001:10001"]) :]
    assert not {"RUN", "COPY", "ADD"} & {name for name, *_ in after}


@pytest.mark.parametrize("image", IMAGES, ids=lambda i: i.name)
def test_the_last_stage_installs_nothing(image: Image) -> None:
    for name, *words in last_stage(image):
        assert name != "ADD"
        if name == "RUN":
            assert not {"pip", "install.sh", "apt-get", "curl", "wget"} & set(words), words
        if name == "COPY":
            assert words[0].startswith("--from="), "code and packages are made ready in stages before"


@pytest.mark.parametrize("image", IMAGES, ids=lambda i: i.name)
def test_bases_are_arguments_and_nothing_is_latest(image: Image) -> None:
    text = (ROOT / image.containerfile).read_text()
    assert "latest" not in text
    for name, *words in read(image):
        if name == "FROM":
            assert words[0] in ("${BASE_IMAGE}", "${PARENT}", "scratch"), words
    assert not re.search(r"[a-z0-9-]+\.(?:io|com|org|dev)/", text), "no registry and no index is named"
    parent = [words[0] for name, *words in read(image) if name == "ARG" and words[0].startswith("PARENT=")]
    assert parent == ([f"PARENT=onlinevpo-{image.parent}:local"] if image.parent else [])


@pytest.mark.parametrize("image", IMAGES, ids=lambda i: i.name)
def test_labels(image: Image) -> None:
    text = " ".join(word for name, *words in last_stage(image) if name == "LABEL" for word in words)
    for label in ("title", "description", "licenses", "version", "revision", "created"):
        assert f"org.opencontainers.image.{label}=" in text
    assert f"title=onlinevpo-{image.name} " in text


@pytest.mark.parametrize("image", IMAGES, ids=lambda i: i.name)
def test_a_new_revision_is_not_taken_from_the_cache(image: Image) -> None:
    """Between the arguments and what they set there is a RUN: some engines look at no other instruction."""
    names = [name for name, *_ in last_stage(image)]
    declared = max(i for i, (name, *words) in enumerate(last_stage(image)) if name == "ARG")
    assert "RUN" in names[declared : names.index("LABEL")]
    assert "LABEL" not in names[:declared] and "ENV" not in names[:declared]


def test_the_base_sets_the_environment_that_the_steps_count_on() -> None:
    words = [word for name, *words in last_stage(IMAGES[0]) if name == "ENV" for word in words]
    found = dict(word.split("=", 1) for word in words)
    assert (
        found.items()
        >= {
            "HOME": "/cache",
            "ONLINEVPO_CACHE": "/cache/onlinevpo",
            "HF_HOME": "/cache/huggingface",
            "HF_HUB_OFFLINE": "1",
            "MPLCONFIGDIR": "/cache/matplotlib",
            "TMPDIR": "/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }.items()
    )


@pytest.mark.parametrize("image", FAMILY_IMAGES, ids=lambda i: i.name)
def test_an_image_has_the_code_of_its_steps_and_its_programs(image: Image) -> None:
    modules = [f"components.{step.name}.__main__" for step in STEPS if step.family == image.name]
    modules += [f"components.{step.name}.step" for step in STEPS if step.family == image.name]
    for program in PROGRAMS[image.name]:
        package = (ROOT / program.replace(".", "/")).is_dir()
        modules.append(f"{program}.__main__" if package else program)
    needed = set().union(*(imported(module) for module in modules))
    assert len(needed) > 10
    missing = needed - copied(image)
    assert not missing, f"not copied: {sorted(str(path.relative_to(ROOT)) for path in missing)}"


@pytest.mark.parametrize("image", FAMILY_IMAGES, ids=lambda i: i.name)
def test_an_image_has_no_step_that_it_does_not_need(image: Image) -> None:
    """Another step's code would change the image's digest, and so lose Kubeflow's cache, for nothing."""
    modules = [f"components.{step.name}.step" for step in STEPS if step.family == image.name]
    needed = {p.relative_to(ROOT).parts[1] for m in modules for p in imported(m)}
    there = {
        p.relative_to(ROOT).parts[1] for p in copied(image) if p.relative_to(ROOT).parts[0] == "components"
    }
    assert there - needed == set()


def test_only_the_model_image_carries_the_committed_weights() -> None:
    weights = ROOT / "models/miniature/model_index.json"
    assert [image.name for image in FAMILY_IMAGES if weights in copied(image)] == ["model"]


def test_everything_copied_passes_the_ignore_file() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    for image in IMAGES:
        for source in sources(image, "cpu"):
            assert (ROOT / source).exists(), source
            assert source.split("/")[0] in allowed, source
