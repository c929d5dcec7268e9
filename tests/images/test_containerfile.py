"""What the Containerfile says, read as text: nothing is built here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.runtime.errors import InputError
from images.catalogue import CONTAINERFILE, NAMES, ROOT, needed, selected, sources, stages
from pipelines.steps import FAMILIES, STEPS

TEXT = (ROOT / CONTAINERFILE).read_text()
STAGES = stages(TEXT)
#: Each target and the one that it is built on.
PARENTS = {
    "base": "${BASE_IMAGE}", "control": "base", "services": "base", "compute": "base", "data": "compute",
    "generation": "compute", "model": "generation", "evaluation": "generation",
}  # fmt: skip
#: What a family's containers are started with, besides the steps.
PROGRAMS = {
    "data": ("pipelines.container.entrypoint",),
    "model": ("pipelines.container.entrypoint", "pipelines.trainjob.torchrun"),
    "evaluation": ("pipelines.container.entrypoint",),
    "control": ("pipelines.container.entrypoint", "pipelines.exit_handler.report", "pipelines.trainjob"),
}


def copied(target: str) -> set[Path]:
    """Files of the repository that are in an image's own /app, or that it is built with."""
    files: set[Path] = set()
    for source in sources(target, "cpu"):
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
    assert {*FAMILIES, "services"} == set(NAMES) and set(FAMILIES) == set(PROGRAMS)
    assert {name: STAGES[name][0][1] for name in PARENTS} == PARENTS
    helpers = {f"{name}-{part}" for name in PARENTS for part in ("packages", "code")}
    assert STAGES.keys() - PARENTS.keys() - helpers == {"", "wheelhouse", "installer", "code"}


def test_what_is_asked_for() -> None:
    assert selected(()) == FAMILIES
    assert selected(("services", "data")) == ("data", "services")
    with pytest.raises(InputError, match="--family compute: must be one of data, model"):
        selected(("compute",))


def test_a_target_needs_its_parents_and_nothing_of_another_family() -> None:
    order = needed("model", STAGES)
    assert order[-1] == "model" and {"base", "compute", "generation", "model-code"} < set(order)
    assert not [name for name in order if name.startswith(("control", "data", "evaluation", "services"))]
    assert all(
        order.index(parent) < order.index(name) for name, parent in PARENTS.items() if name in order[4:]
    )
    for name in ("components/alignment", "images/locks/control.txt", "components/evaluation"):
        assert name not in sources("data", "cpu")
    assert "images/locks/compute-cuda.txt" in sources("data", "cuda")


@pytest.mark.parametrize("target", PARENTS)
def test_an_image_installs_nothing_and_runs_unprivileged(target: str) -> None:
    users = [words for name, *words in STAGES[target] if name == "USER"]
    assert users == ([["10001:10001"]] if target == "base" else []), "set once, inherited"
    for name, *words in STAGES[target]:
        assert name != "ADD"
        if name == "RUN":
            assert not {"pip", "install.sh", "apt-get", "curl", "wget"} & set(words), words
        if name == "COPY":
            assert words[0].startswith("--from="), "code and packages are made ready in stages before"


def test_bases_are_arguments_and_nothing_is_latest() -> None:
    assert "latest" not in TEXT
    parents = [words[1] for stage in STAGES.values() for words in stage if words[0] == "FROM"]
    assert set(parents) - STAGES.keys() == {"${BASE_IMAGE}", "scratch"}
    assert not re.search(r"[a-z0-9-]+\.(?:io|com|org|dev)/", TEXT), "no registry and no index is named"


@pytest.mark.parametrize("target", PARENTS)
def test_a_new_revision_is_not_taken_from_the_cache(target: str) -> None:
    """It comes last; between the argument and the ENV is a RUN: some engines look at no other instruction."""
    names = [name for name, *_ in STAGES[target]]
    last = ["ARG", "RUN", "ENV"]
    assert (names[-3:] == last and "ARG" not in names[:-3]) if target in FAMILIES else "ARG" not in names


def test_the_base_sets_the_environment_that_the_steps_count_on() -> None:
    words = [word for name, *words in STAGES["base"] if name == "ENV" for word in words]
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


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_has_the_code_of_its_steps_and_its_programs(family: str) -> None:
    modules = [f"components.{step.name}.__main__" for step in STEPS if step.family == family]
    modules += [f"components.{step.name}.step" for step in STEPS if step.family == family]
    for program in PROGRAMS[family]:
        package = (ROOT / program.replace(".", "/")).is_dir()
        modules.append(f"{program}.__main__" if package else program)
    needed = set().union(*(imported(module) for module in modules))
    assert len(needed) > 10
    missing = needed - copied(family)
    assert not missing, f"not copied: {sorted(str(path.relative_to(ROOT)) for path in missing)}"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_has_no_step_that_it_does_not_need(family: str) -> None:
    """Another step's code would change the image's digest, and so lose Kubeflow's cache, for nothing."""
    modules = [f"components.{step.name}.step" for step in STEPS if step.family == family]
    needed = {p.relative_to(ROOT).parts[1] for m in modules for p in imported(m)}
    there = {
        p.relative_to(ROOT).parts[1] for p in copied(family) if p.relative_to(ROOT).parts[0] == "components"
    }
    assert there - needed == set()


def test_only_the_model_image_carries_the_committed_weights() -> None:
    weights = ROOT / "models/miniature/model_index.json"
    assert [family for family in FAMILIES if weights in copied(family)] == ["model"]


def test_everything_copied_passes_the_ignore_file() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    for name in NAMES:
        for source in sources(name, "cpu"):
            assert (ROOT / source).exists(), source
            assert source.split("/")[0] in allowed, source
