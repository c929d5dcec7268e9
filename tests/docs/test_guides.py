"""Every fenced command and file of the guides: read by the real command line, run where that is cheap.

What is not known here fails: a language, a program, a Makefile's target. So nothing is passed over in
silence. What is looked at for its form only is in `FORM_ONLY`, with the reason.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from components.params import load_params
from pipelines.compiler.profile import Profile
from tests.docs.guides import (
    ROOT,
    Block,
    Command,
    asides,
    blocks,
    commands,
    guides,
    heredocs,
    without_placeholders,
)

#: Programs of others, of which only the form is looked at (a shell reads it, files of ours that it names are
#: there): they want a cluster, an engine, a network, an account, or change the machine.
FORM_ONLY = {
    "kubectl": "wants a cluster; paths and verbs are looked at; the manifests have their own tests",
    "kind": "wants an engine; its file is read",
    "docker": "an engine; tests/containers build and run the images",
    "podman": "an engine, as docker",
    "buildah": "an engine, as docker",
    "git": "changes the checkout",
    "curl": "wants the cluster's MLflow",
    "rclone": "wants a store; tests/manifests start one",
    "grep": "reads files that others' servers deliver; its pattern has a test below",
    "base64": "", "sort": "", "less": "", "echo": "", "cat": "", "mkdir": "", "cp": "",
    "cd": "", "export": "", "set": "", "pg_dump": "runs in the pod of PostgreSQL",
    "apt": "changes the machine", "pip": "changes the environment",
}  # fmt: skip
KUBECTL = {
    "apply", "wait", "rollout", "label", "kustomize", "port-forward", "get", "describe", "logs", "exec",
    "delete", "-n",
}  # fmt: skip
#: Names that a block of Python uses and does not make: the reader's own.
READERS_OWN = {
    "components/reward/README.md": {"frames", "prompts", "distortion", "Tensor", "Draws"},
    "CONTRIBUTING.md": {"ModelFamily", "MemoryHints", "torch", "FlowMatching"},
}
#: Sentences that name a command with something left out.
UNFINISHED = re.compile(r"STEP|VERB|<step>|\.\.\.|--set --|--images$|--params FILE or")


def block_id(block: Block) -> str:
    return str(block)


SHELL = [block for block in blocks() if block.language == "sh"]
YAML = [block for block in blocks() if block.language == "yaml"]
PYTHON = [block for block in blocks() if block.language == "python"]


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    assert {block.language for block in blocks()} <= {"sh", "yaml", "python", "", "json", "text"}
    assert len(SHELL) > 20 and YAML and PYTHON
    for block in blocks():
        if block.language in ("", "text"):  # pictures and what a program prints
            assert not re.search(r"^\s*(\$ |python -m|make \w|kubectl |pip )", block.text, re.M), block
        if block.language == "json":
            json.loads(block.text)


@pytest.mark.parametrize("block", SHELL, ids=block_id)
def test_every_command_of_a_shell_block(block: Block) -> None:
    shell = subprocess.run(
        ["sh", "-n"], input=without_placeholders(block.text), text=True, capture_output=True
    )
    assert shell.returncode == 0, shell.stderr
    found = commands(str(block), block.text)
    assert found
    for command in found:
        check(command)
    for text in heredocs(block):
        assert yaml.safe_load(text)["kind"] == "Cluster"


def test_every_command_in_running_text() -> None:
    seen = 0
    for where, text in asides():
        if not UNFINISHED.search(text):
            for command in commands(where, text):
                check(command, whole=False)
                seen += 1
    assert seen > 30


@pytest.mark.parametrize("file", ["README.md", "docs/cluster.md"])
def test_the_environment_is_activated_before_its_commands(file: str) -> None:
    words = [c.words for block in SHELL if block.file == file for c in commands(str(block), block.text)]
    first = next(i for i, one in enumerate(words) if one[0] in ("python", "torchrun", "dvc", "hf"))
    assert (".", ".venv/bin/activate") in words[:first]


def check(command: Command, whole: bool = True) -> None:
    """Fail if a command is not what its program takes.

    Args:
        whole: False: a sentence may name a command without what it requires.
    """
    program, *rest = ["1" if word == "N" else word for word in command.words]
    if program in ("python", ".venv/bin/python"):
        assert rest[0] == "-m", command
        check_module(command, rest[1], rest[2:], whole)
    elif program == "onlinevpo":
        from pipelines import console

        read_by_click(console.command(), program, rest, command, whole)
    elif program == "make":
        check_make(command, rest)
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        own = read_by(get_args_parser(), rest, command)
        assert own.module, command
        check_module(command, own.training_script, own.training_script_args, whole)
    elif program == "hf":
        # click parses all words before it prints the help.
        reads = subprocess.run(
            [Path(sys.executable).with_name("hf"), *rest, "--help"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert reads.returncode == 0, f"{command}: {reads.stderr or reads.stdout}"
    elif program == "dvc":
        from dvc.cli import parse_args

        parse_args(rest)
    elif program == "pytest":
        check_files(command, [word for word in rest if not word.startswith("-")], must=True)
    elif program == ".":
        assert rest == [".venv/bin/activate"], command
    elif program.endswith(("secrets/create", "run.sh")):
        assert os.access(ROOT / program, os.X_OK), command
    elif program == ".venv/bin/pre-commit":
        assert (ROOT / ".pre-commit-config.yaml").is_file()
    else:
        assert program in FORM_ONLY, f"{command}: a program that nobody looks at"
        check_files(command, rest, must=False)
        if program == "kubectl":
            assert rest[0] in KUBECTL, command


def check_files(command: Command, words: Iterable[str], must: bool) -> None:
    """Files of the tree that a command names are there."""
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - {
        "artifacts", "models", "weights", "wheels",
    }  # fmt: skip
    for word in words:
        if must or (word.partition("/")[0] in tops and "/" in word):
            assert (ROOT / word.partition("::")[0]).exists(), f"{command}: {word} is not there"


def check_make(command: Command, words: Sequence[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)
    assert phony is not None
    for word in words:
        name, is_variable, _ = word.partition("=")
        known = re.search(rf"^{re.escape(name)} \?=", text, re.M) if is_variable else name in phony[1].split()
        assert known, f"{command}: make has no {name}"


def check_module(command: Command, module: str, words: Sequence[str], whole: bool) -> None:
    if module == "pytest":
        check_files(command, [word for word in words if not word.startswith("-")], must=True)
        return
    name = f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module
    main = importlib.import_module(name)
    if isinstance(getattr(main, "app", None), typer.Typer):
        read_by_click(main.app, module, words, command, whole)
        return
    # argparse: its parser is made where the command begins.
    done = subprocess.run(
        [sys.executable, "-m", module, *words, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"


def read_by(parser: argparse.ArgumentParser, words: Sequence[str], command: Command) -> argparse.Namespace:
    try:
        return parser.parse_args(list(words))
    except SystemExit as error:
        raise AssertionError(f"{command}: {error}") from None


def read_by_click(app: typer.Typer, name: str, words: Sequence[str], command: Command, whole: bool) -> None:
    """Take a command line apart as its program does, and stop before anything is run."""
    import typer.main

    at: Any = typer.main.get_command(app)
    parent, rest = None, [word for word in words if word not in ("...", "…")]
    while True:
        try:
            context = at.make_context(name, list(rest), parent=parent)
        except Exception as error:
            if type(error).__name__ == "Exit":  # --help
                return
            missing = type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError") or not rest
            if missing and not whole:
                return
            said = error.format_message() if hasattr(error, "format_message") else repr(error)
            raise AssertionError(f"{command}: {said}") from None
        if not hasattr(at, "resolve_command"):
            return
        remaining = [*context._protected_args, *context.args]
        name, at, rest = at.resolve_command(context, remaining)
        parent = context


def test_what_is_wrong_is_found() -> None:
    """The checks above, held against commands that are wrong."""
    wrong = [
        "python -m components.registry promote --reason x",
        "python -m components.registry rollback",
        "python -m components.registry promot",
        "onlinevpo promot",
        "python -m pipelines compile",
        "python -m pipelines submit pipeline.yaml --host",
        "torchrun --nprocs 2 -m components.alignment run",
        "hf downlod x",
        "make instal",
        "make run STAK=1",
        "kubectl aply -k manifests/overlays/local",
        "kubectl apply -k manifests/overlays/locale",
        "python -m pytest tests/image",
        "wget https://example.org",
    ]
    for text in wrong:
        (command,) = commands("here", text)
        try:
            check(command)
        except (AssertionError, argparse.ArgumentError):
            continue
        except Exception as error:
            assert "UsageError" in str(type(error).__mro__), text
            continue
        pytest.fail(f"passed: {text}")


def test_a_shells_text_is_taken_apart() -> None:
    text = """a=1 b "c d" && e | f > g  # h; i
    export X=$(j -k) &
    l <m n> --to o <<'END'
    not a command
END
    p \\
      q; r 2>/dev/null"""
    found = [(c.variables, c.words) for c in commands("here", text)]
    assert found == [
        ((), ("j", "-k")),
        (("a=1",), ("b", "c d")),
        ((), ("e",)),
        ((), ("f",)),
        ((), ("export", "X=SUBSTITUTED")),
        ((), ("l", "PLACEHOLDER", "--to", "o")),
        ((), ("p", "q")),
        ((), ("r",)),
    ]  # fmt: skip


@pytest.mark.parametrize("block", YAML, ids=block_id)
def test_every_yaml_file_is_what_it_says(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(block.text)
    if block.file == "pipelines/README.md":
        from pipelines.compiler.profile import load_profile

        assert isinstance(load_profile(str(file)), Profile)
        return
    assert block.text.startswith("# params.yaml"), f"{block}: neither params nor a profile"
    params = load_params(file)
    assert params.corpus.frames == params.generator.sampling.num_frames
    with_sections = set(yaml.safe_load(block.text))
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    wanted = {
        key.partition(".")[0]
        for stage in stages.values()
        if not stage.get("frozen")
        for key in stage.get("params", [])
    }
    assert wanted <= with_sections, "dvc: parameters are missing"


@pytest.mark.parametrize("block", PYTHON, ids=block_id)
def test_every_python_block_names_only_what_there_is(block: Block) -> None:
    ruff = shutil.which("ruff", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert ruff is not None
    done = subprocess.run(
        [ruff, "check", "--isolated", "--select", "E9,F", "--ignore", "F811", "--output-format", "json", "-"],
        input=block.text, capture_output=True, text=True,
    )  # fmt: skip
    undefined = {m[1] for one in json.loads(done.stdout) if (m := re.search(r"`(\w+)`", one["message"]))}
    assert undefined <= READERS_OWN.get(block.file, set()), block
    for module, name in re.findall(r"^from ([\w.]+) import (\w+)", block.text, re.M):
        assert hasattr(importlib.import_module(module), name), f"{block}: {module} has no {name}"


def test_the_pattern_that_lists_images_misses_none() -> None:
    """On lines as Kubeflow Pipelines, Trainer and Kueue write them."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    pattern = re.search(r"grep -hoE '([^']+)' kfp-2\.yaml", text)
    assert pattern is not None
    images = [
        "gcr.io/tfx-oss-public/ml_metadata_store_server:1.14.0",
        "ghcr.io/kubeflow/kfp-api-server:2.17.0",
        "quay.io/argoproj/workflow-controller:v3.7.3",
        "registry.k8s.io/kueue/kueue:v0.19.2",
        "localhost:5001/onlinevpo-model:1a2b",
        "docker.io/chrislusf/seaweedfs:4.00",
    ]
    lines = [f"        image: {image}" for image in images[:3]]
    lines += [f"          value: {image}" for image in images[3:]]
    done = subprocess.run(
        ["grep", "-hoE", pattern[1]], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == images


def test_the_digest_is_of_the_readers_own_registry(tmp_path: Path) -> None:
    """The command of the guide, on an engine that names the digest of the first registry first."""
    (line,) = [
        c for b in SHELL for c in re.findall(r"docker inspect.*?(?=  #)", b.text, re.S) if "postgres" in c
    ]
    engine = tmp_path / "docker"
    engine.write_text(
        "#!/bin/sh\nprintf 'postgres@sha256:aaaa\\nlocalhost:5001/postgres@sha256:bbbb\\n\\n'\n"
    )
    engine.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["sh", "-c", line], env={"PATH": path}, capture_output=True, text=True)
    assert done.stdout.split() == ["localhost:5001/postgres@sha256:bbbb"]
    assert "RepoDigests" in line and "index .RepoDigests 0" not in line


def test_running_text_is_wrapped_at_100_columns() -> None:
    """A table's row, a block's line and a word that is longer stay as they are."""
    fenced, long = False, []
    for path in guides():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            fenced ^= line.lstrip().startswith("```")
            if fenced or line.lstrip().startswith(("|", "```", "    ")) or len(line) <= 100:
                continue
            if max(len(word) for word in re.findall(r"`[^`]+`\S*|\[[^]]*\]\([^)]*\)\S*|\S+", line)) < 60:
                long.append(f"{path.relative_to(ROOT)}:{number}")
    assert long == []


def test_relative_links_name_what_there_is() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in guides()
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert missing == []
