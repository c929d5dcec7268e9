"""One name for one thing, and the field's words: docs/glossary.md."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("components", "pipelines", "images", "benchmarks", "examples")

#: Words that were replaced, as patterns, and the word that replaced them.
RETIRED: dict[str, str] = {
    r"\b(Crew|LabelWorkers)\b": "ProcessPool",
    r"\b[Ss]hel(f|ves)\b": "weight store",
    r"\bContest\b": "ResultComparison",
    r"\bPace\b": "polling or retry policy",
    r"\bServerSilent\b": "ServerUnavailable",
    r"\bNotThere\b": "NotFound",
    r"\b(InStep|of_odd_type)\b": "uneven-input join, minority-dtype parameters",
    r"\b(lead|leads) nowhere\b": "dummy forward",
    r"\bmeanwhile=": "overlap_scoring",
    r"\btake_kept\b": "load_best",
    r"\b(is|be) told the (guidance )?scale\b|\bto be told the scale\b": "guidance-distilled",
    r"\brungs?\b": "severity level",
    r"\breward's own doubt\b|\bjudge's doubt\b": "ensemble std, uncertainty",
    r"\bproven: (true|false)\b": "confident",
    r"\bworld's (own )?(exact )?judge\b": "oracle judge",
    r"\b(winner_seed|loser_seed)\b": "",
    r"\breversed_change\b": "time_reversal_change",
    r"\bto be gone on with\b": "to resume",
    r"\bhow manyeth\b": "stride",
    r"\balign anew\b": "rerun alignment",
    r"\bnothing to say about any\b": "cannot score any",
    r"(?<!components\.)\balignment\.(candidates|prompts|updates|noise_draws|refill)\b": "docs/glossary.md",
    r"\balignment\.(objective|winner_weight|refresh_every|shard)\b": "docs/glossary.md",
    r"\b(judge_all|to_frames|HEAD_SIZE|clean_from)\b": "",
}
#: Files that must name a retired word: they read what an earlier release wrote, or tell its history.
ALLOWED: dict[str, tuple[str, ...]] = {
    "CHANGELOG.md": tuple(RETIRED),
    "tests/test_words.py": tuple(RETIRED),
    "components/reward/card/card.py": (r"\breversed_change\b",),
    "components/reward/params.py": (r"\brungs?\b",),
    "tests/reward/card/test_card.py": (r"\breversed_change\b",),
}


def _tracked(*suffixes: str) -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [ROOT / name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()]


def test_no_class_name_has_two_meanings() -> None:
    places = defaultdict(list)
    for path in _tracked(".py"):
        if path.relative_to(ROOT).parts[0] not in SOURCES:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert len(places) > 100
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("pattern", RETIRED)
def test_a_retired_word_is_gone(pattern: str) -> None:
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in _tracked(".py", ".md", ".yaml", ".j2", ".toml")
        if path.relative_to(ROOT).parts[0] not in ("results", "models")
        and pattern not in ALLOWED.get(str(path.relative_to(ROOT)), ())
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert lines == [], f"use instead: {RETIRED[pattern] or 'nothing, it was removed'}"


def test_no_module_and_no_folder_is_too_large() -> None:
    sources = [p for p in _tracked(".py") if p.relative_to(ROOT).parts[0] in SOURCES]
    long = {
        str(p.relative_to(ROOT)) for p in sources if len(p.read_text(encoding="utf-8").splitlines()) > 400
    }
    assert long == set()
    entries = defaultdict(set)
    for path in _tracked(""):
        for parent in list(path.relative_to(ROOT).parents)[:-1]:
            if parent.parts[0] in SOURCES:
                entries[str(parent)].add(path.relative_to(ROOT / parent).parts[0])
    assert {folder: len(names) for folder, names in entries.items() if len(names) > 15} == {}
