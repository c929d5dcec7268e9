"""The guides' own commands, run in their order in an empty folder: what compiles, checks and submits.

The server is the stand-in of tests/pipelines, in the place of the host that a guide names. Steps, plans,
images, stack and manifests are run by tests of their own.
"""

from __future__ import annotations

import importlib
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.runtime.step import main
from tests.docs.guides import ROOT, Block, blocks, commands
from tests.pipelines.client.kfp_server import KfpServer, serving

#: Programs and verbs that want nothing but files, or the stand-in, and take seconds.
RUN = {
    "pipelines": {"compile", "lint", "submit", "gitops"},
    "components": {"schema", "params"},
}
FAMILIES = ("data", "model", "evaluation", "control")


def cheap(block: Block) -> list[tuple[str, ...]]:
    """The words of a block's commands that are run here, in order."""
    if block.language != "sh":
        return []
    found = [command.words for command in commands(str(block), block.text)]
    modules = {verb: module for module, verbs in RUN.items() for verb in verbs}
    found = [
        ("python", "-m", modules[w[1]], *w[1:]) if w[0] == "onlinevpo" and w[1:2] and w[1] in modules else w
        for w in found
    ]
    return [w[2:] for w in found if w[:2] == ("python", "-m") and w[3:4] and w[3] in RUN.get(w[2], ())]


BLOCKS = [block for block in blocks() if cheap(block)]


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with serving() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `make install` and `python -m images build` leave: params.yaml and images.yaml."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    named = {family: f"registry.example/onlinevpo-{family}@sha256:{'5' * 64}" for family in FAMILIES}
    (tmp_path / "images.yaml").write_text(yaml.safe_dump(named))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


def run(words: tuple[str, ...]) -> int:
    app = importlib.import_module(f"{words[0]}.__main__").app
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            main(app, list(words[1:]))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_every_kind_is_somewhere() -> None:
    there = {words[:2] for block in BLOCKS for words in cheap(block)}
    assert there >= {("pipelines", verb) for verb in RUN["pipelines"]}
    assert ("components", "schema") in there


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_commands_of_a_block(
    block: Block, folder: Path, server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in cheap(block):
        meant = tuple(server.host if word.startswith("http") else word for word in words)
        assert run(meant) == 0, (words, capsys.readouterr().err)
        out = capsys.readouterr().out
        if words[1] == "compile":
            assert len(list(yaml.safe_load_all((folder / "pipeline.yaml").read_text()))) == 2
        elif words[1] == "submit":
            assert len(server.runs) == 1 and next(iter(server.runs)) in out.splitlines()[0]
        elif words[1] == "gitops":
            kinds = [one["kind"] for one in yaml.safe_load_all((folder / "gitops.yaml").read_text())]
            assert kinds == ["Pipeline", "PipelineVersion"]
        elif words[1] == "schema":
            assert "corpus" in json.loads(out)["properties"]
        else:
            assert out
