"""Lists of prompts in every format, against json, csv and yaml of Python's own writers, and refusals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from components.corpus.prompts import read_prompts
from components.evaluation.vbench.suites import load_suite
from components.runtime.errors import InputError
from components.runtime.io.prompt_lists import MAX_PROMPTS, read_prompt_list

PROMPTS = ["a cat, running", 'A man says "hello, world"', "Zoom: 走る", "- a dash; a semicolon", "yes", "12"]


def as_csv(delimiter: str = ",", header: tuple[str, ...] = ("id", "Prompt", "seed")) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerow(header)
    for number, prompt in enumerate(PROMPTS):
        writer.writerow([number, prompt, 7])
    return stream.getvalue()


def json_lines(key: str) -> str:
    return "\n".join(json.dumps({"seed": 1, key: prompt}) for prompt in PROMPTS) + "\n"


FORMS: dict[str, Callable[[], str]] = {
    "list.json": lambda: json.dumps(PROMPTS),
    "pretty.json": lambda: json.dumps(PROMPTS, indent=1),
    "objects.json": lambda: json.dumps([{"prompt_en": prompt} for prompt in PROMPTS], indent=2),
    "nested.json": lambda: json.dumps({"version": 1, "prompts": PROMPTS}),
    "lines.json": lambda: json_lines("prompt"),
    "a.jsonl": lambda: json_lines("prompt"),
    "b.ndjson": lambda: json_lines("Caption"),
    "strings.jsonl": lambda: "\n\n".join(map(json.dumps, PROMPTS)),
    "list.jsonl": lambda: json.dumps(PROMPTS),
    "a.csv": as_csv,
    "b.csv": lambda: as_csv(";"),
    "c.tsv": lambda: as_csv("\t"),
    "blank.csv": lambda: "\n" + as_csv() + "\n,,\n",
    "d.csv": lambda: as_csv(header=("text", "prompt", "x")),
    "a.yaml": lambda: yaml.safe_dump(PROMPTS),
    "b.YML": lambda: yaml.safe_dump({"prompts": [{"prompt": prompt} for prompt in PROMPTS]}),
    # Told by their content.
    "list.txt": lambda: json.dumps(PROMPTS, indent=1),
    "one_line": lambda: json.dumps(PROMPTS),
    "jsonl.txt": lambda: json_lines("prompt"),
    "csv.txt": as_csv,
    "yaml.txt": lambda: "# ours\n" + yaml.safe_dump(PROMPTS, indent=2),
    "mapping.txt": lambda: yaml.safe_dump({"prompts": PROMPTS}),
    "lines.txt": lambda: "# ours\n" + "\n\n".join(PROMPTS) + "\n# end\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_corpus_and_suite_read_the_prompts_that_were_written(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(FORMS[name](), encoding="utf-8-sig", newline="")
    assert [prompt.text for prompt in read_prompts(file)] == PROMPTS
    assert list(load_suite(str(file)).wanted()) == PROMPTS


@pytest.mark.parametrize("text", ["[cinematic] a cat\na dog\n", "{a, b}\n'quoted'\n", "- a cat\na dog\n"])
def test_a_line_that_only_resembles_another_format_is_a_prompt(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(text)
    assert read_prompt_list(file) == text.splitlines()


def test_too_many_prompts_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"{number}\n" for number in range(MAX_PROMPTS + 1)))
    with pytest.raises(InputError, match="20,001 prompts, at most 20,000"):
        read_prompt_list(file)


def test_repetitions_are_kept_where_they_are_wanted(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a\nb\na\n")
    assert read_prompt_list(file) == ["a", "b"]
    assert read_prompt_list(file, distinct=False) == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '[\n "a",\n', "not readable as JSON"),
        ("a.txt", '[\n "a",\n', "not readable as JSON"),
        ("a.json", "12", "expected a list of prompts, found int"),
        ("a.json", '{"words": []}', "expected a list of prompts, or an object with `prompts`"),
        ("a.json", '["a", 3]', "item 2: 3 is int, a prompt must be text"),
        ("a.json", '["a", ""]', "item 2: an empty prompt"),
        ("a.json", r'["a", "b\nc"]', "item 2: control characters and line breaks"),
        ("a.jsonl", '{"prompt": "a"}\n{"promt": "b"}', "line 2: no `prompt` in {'promt': 'b'}"),
        ("a.jsonl", '{"prompt": "a"}\n{"text": "b"}', "line 2: no `prompt`"),
        ("a.jsonl", '{"prompt": "a"}\nb', "line 2: not readable as JSON"),
        ("a.csv", "a cat\na dog\n", "no column is named prompt"),
        ("a.csv", "", "no column is named prompt"),
        ("a.csv", "prompt\na cat, running\n", "line 2: 2 cells where the header names 1"),
        ("a.csv", "seed,prompt\n1\n", "line 2: 1 cells where the header names 2"),
        ("a.csv", "seed,prompt\n1,\n", "line 2: an empty prompt"),
        ("a.csv", 'prompt,x\n"a cat\n', "not readable as CSV"),
        (
            "a.yaml",
            "- a cat\n- Zoom: in\n",
            "item 2: no `prompt` in {'Zoom': 'in'}; a prompt that holds a colon",
        ),
        ("a.yaml", "- a cat\n- yes\n", "item 2: True is bool"),
        ("a.yaml", "a: [", "not readable as YAML"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_clear_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    for read in (read_prompts, lambda given: load_suite(str(given))):
        with pytest.raises(InputError) as caught:
            read(file)
        assert str(file) in str(caught.value) and message in str(caught.value)
        assert "\n" not in str(caught.value)
