"""The blocks and the commands of the guides, and a shell's text taken apart into words."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
_INLINE = re.compile(r"`((?:python -m|onlinevpo|make|torchrun|kubectl|dvc|pytest|pip) [^`]+)`")
_INDENTED = re.compile(r"^    ((?:python -m|onlinevpo|make|torchrun) (?:.*\\\n)*.*)$", re.M)
_HEREDOC = re.compile(r"<<'?(\w+)'?(.*?)\n(.*?)^\1$", re.M | re.S)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text."""

    file: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A simple command of a shell text: where it stands, its variables and its words."""

    where: str
    variables: tuple[str, ...]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)}"


def guides() -> list[Path]:
    """Every Markdown file that tells people what to do."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split() if name != "CHANGELOG.md"]


@cache
def blocks() -> tuple[Block, ...]:
    found = []
    for path in guides():
        text = path.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(str(path.relative_to(ROOT)), line, match[2], match[3]))
    return tuple(found)


def asides() -> Iterator[tuple[str, str]]:
    """Where, and what: commands in running text, between backticks or indented."""
    for path in guides():
        text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), path.read_text(encoding="utf-8"))
        for pattern in (_INLINE, _INDENTED):
            for match in pattern.finditer(text):
                where = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
                # What may be left out, as in [--json], counts as given.
                shown = re.sub(r"\[(--[^]]+)\]", r"\1", match[1].replace("\\\n", " "))
                yield where, " ".join(shown.split())


def heredocs(block: Block) -> list[str]:
    return [match[3] for match in _HEREDOC.finditer(block.text)]


def without_placeholders(text: str) -> str:
    """`<run id>` and the like as one word each; so that a shell reads no redirection in them."""
    return re.sub(r"<[a-z][\w -]*>", "PLACEHOLDER", text)


def commands(where: str, text: str) -> list[Command]:
    """The simple commands of a shell text, those of its substitutions included, in order."""
    text = _HEREDOC.sub(lambda match: match[2], without_placeholders(text))
    text = text.replace("\\\n", " ")
    found = []
    for inner in re.findall(r"\$\(([^()]+)\)", text):
        found += commands(where, inner)
    text = re.sub(r"\$\([^()]+\)", "SUBSTITUTED", text)
    text = re.sub(r"\s\d(?=[<>])", " ", text)
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";|&()"):
                found += _simple(where, words)
                words = []
            else:
                words.append(word)
    return found


def _simple(where: str, words: list[str]) -> list[Command]:
    """A command without its redirections; none where there are no words."""
    kept, skip = [], False
    for word in words:
        if skip or (set(word) <= set("<>") and word):
            skip = not skip and set(word) <= set("<>")
            continue
        kept.append(word)
    variables = []
    while kept and _ASSIGNMENT.fullmatch(kept[0]):
        variables.append(kept.pop(0))
    return [Command(where, tuple(variables), tuple(kept))] if kept else []
