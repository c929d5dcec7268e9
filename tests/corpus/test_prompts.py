from __future__ import annotations

from pathlib import Path

import pytest

from components.corpus.prompts import read_prompts, world_prompts
from components.runtime.errors import InputError
from components.runtime.io import storage
from components.runtime.io.prompt_lists import MAX_FILE_BYTES, MAX_PROMPT_CHARACTERS
from tests.s3 import Store


def written(folder: Path, data: str | bytes) -> Path:
    file = folder / "prompts.txt"
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


def refused(folder: Path, data: str | bytes) -> str:
    file = written(folder, data)
    with pytest.raises(InputError) as caught:
        read_prompts(file)
    assert str(file) in str(caught.value)
    return str(caught.value)


def test_the_world_has_576_prompts_with_distinct_ids() -> None:
    prompts = world_prompts()
    assert len({prompt.id for prompt in prompts}) == len({prompt.text for prompt in prompts}) == 576
    assert sum(prompt.split == "heldout" for prompt in prompts) == 96


def test_a_list_keeps_its_order_and_loses_blanks_and_repetitions(tmp_path: Path) -> None:
    file = written(tmp_path, "\ufeffa dog\r\n\n  ein Mädchen, 走る \na dog\n👩‍🚀 in space\n")
    assert [prompt.text for prompt in read_prompts(file)] == ["a dog", "ein Mädchen, 走る", "👩‍🚀 in space"]


def test_one_in_six_is_held_out_whatever_the_order(tmp_path: Path) -> None:
    lines = [f"a scene number {k}" for k in range(60)]
    first = read_prompts(written(tmp_path, "\n".join(lines)))
    second = read_prompts(written(tmp_path, "\n".join(reversed(lines))))
    assert sum(prompt.split == "heldout" for prompt in first) == 10
    assert {prompt.text: prompt for prompt in first} == {prompt.text: prompt for prompt in second}
    assert sorted(prompt.split for prompt in read_prompts(written(tmp_path, "a\nb"))) == ["heldout", "train"]


def test_bad_lists(tmp_path: Path) -> None:
    assert "line 2: control characters" in refused(tmp_path, "good\nbad\x1b[31m\nx")
    assert "control characters" in refused(tmp_path, "good\nnul\x00byte")
    assert "control characters" in refused(tmp_path, "good\nturned \u202e round")
    assert "control characters" in refused(tmp_path, "good\ntwo\u2028lines")
    assert "not UTF-8 text (byte 5)" in refused(tmp_path, b"fine\n\xff\xfe")
    assert "line 1" in refused(tmp_path, "x" * (MAX_PROMPT_CHARACTERS + 1) + "\ny")
    assert "at least 2" in refused(tmp_path, "only one\n\n")
    assert "at least 2" in refused(tmp_path, "")
    assert "at most" in refused(tmp_path, b"x\n" * 3_000_000)
    with pytest.raises(InputError, match="no such file"):
        read_prompts(tmp_path / "none.txt")


def test_a_list_may_lie_in_a_store(store: Store, tmp_path: Path) -> None:
    file = written(tmp_path, "a dog\nein Mädchen\n")
    storage.write_file(file, "s3://bucket/lists/prompts.txt")
    assert read_prompts("s3://bucket/lists/prompts.txt") == read_prompts(file)
    with pytest.raises(InputError, match=r"s3://bucket/lists/none.txt: no such file"):
        read_prompts("s3://bucket/lists/none.txt")


def test_of_an_endless_list_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    assert "too large" in refused(tmp_path, b"a\n" * (MAX_FILE_BYTES // 2) + b"b")
