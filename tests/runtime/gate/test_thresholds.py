"""The gate file is read from outside: what it may hold, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from components.runtime.errors import InputError
from components.runtime.gate.thresholds import MAX_BYTES, SHIPPED, load_gate, shipped


def written(folder: Path, text: str) -> Path:
    file = folder / "gate.yaml"
    file.write_text(text)
    return file


def test_the_digest_is_of_the_rules_and_not_of_the_layout(tmp_path: Path) -> None:
    again = written(tmp_path, yaml.safe_dump(yaml.safe_load(SHIPPED.read_text())))
    assert load_gate(again) == load_gate()
    assert load_gate(again).digest == load_gate().digest
    other = SHIPPED.read_text().replace("pairs: 96", "pairs: 97")
    assert load_gate(written(tmp_path, other)).digest != load_gate().digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("minimum: {prompts: 0}", "minimum.prompts = 0"),
        ("absolute: [{metric: x}]", "a rule needs at_least, above or at_most"),
        ("absolute: [{metrc: x, above: 1}]", "metrc"),
        ("champion: [{metric: judge, margin: -1}]", "margin = -1"),
        ("absolute: [{metric: x, above: .inf}]", "above"),
        ("relative: []", "unknown key `relative`"),
        ("- a list", "must hold minimum"),
        ("a: [", "not readable as YAML"),
        ("a: !!python/object/apply:os.system [true]", "not readable as YAML"),
        ("a: &a [1]\nb: [*a, *a]", "unknown key"),
        ("\x00", "not readable as YAML"),
        ("[" * 400, "not readable as YAML"),
        ("[" * 3000, "not readable as YAML"),
        ("a: " + "[" * 200 + "]" * 200, "nested more than"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_gate(file)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_huge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing there"):
        load_gate(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="at most"):
        load_gate(written(tmp_path, "#" * (MAX_BYTES + 1)))


def test_the_old_name_of_confident_is_read_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = "absolute: [{metric: x, above: 1, confident: true}]\nbase: [{metric: y, confident: true}]"
    gate = load_gate(written(tmp_path, new.replace("confident", "proven")))
    assert gate == load_gate(written(tmp_path, new))
    assert gate.absolute[0].confident and gate.base[0].confident
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {rule}.proven is deprecated; use {rule}.confident" for rule in ("absolute.0", "base.0")
    ]


def test_thresholds_of_the_reward_are_read_from_the_shipped_file_alone(tmp_path: Path) -> None:
    assert shipped().reward
    copied = load_gate(written(tmp_path, SHIPPED.read_text()))
    assert copied == load_gate()
    for section, changed in (("reward", "srcc_world, at_least: 0.85"), ("refresh", "margin: 0.02")):
        other = SHIPPED.read_text().replace(changed, f"{changed}1")
        with pytest.raises(InputError, match=f"{section}: has no effect in a file of your own"):
            load_gate(written(tmp_path, other))
