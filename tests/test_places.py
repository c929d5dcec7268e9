"""Digests of what params name: any change of content counts, a change of nothing but time does not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from components.__main__ import app
from components.headline import HEADLINE, figures_of
from components.params import Params, resolved
from components.places import PLACES, Remembered, digests
from components.runtime.errors import InputError
from components.runtime.params import Section
from components.runtime.step import main
from tests.s3 import Store


def texts(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """Every param that is text, by its path, with its description."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from texts(annotation, f"{path}{name}.")
        elif "str" in str(annotation):
            yield f"{path}{name}", field.description or ""


def test_every_param_that_names_a_place_is_among_them() -> None:
    places = ("s3://", "folder", "file")
    named = {path for path, words in texts(Params) if any(place in words for place in places)}
    assert named == {f"{section}.{key}" for section, keys in PLACES.items() for key in keys}


def tree(**changes: dict[str, Any]) -> dict[str, Any]:
    return resolved(Params.model_validate(changes))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """A file and two folders, named by params."""
    monkeypatch.setenv("ONLINEVPO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "prompts.txt").write_text("a cat\n")
    for name in ("footage/one/a.mp4", "footage/b.mp4", "base/model_index.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return {
        "corpus": {"prompts": str(tmp_path / "prompts.txt"), "footage": str(tmp_path / "footage")},
        "generator": {"base": str(tmp_path / "base")},
    }


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "text": ("corpus.prompts", lambda here: (here / "prompts.txt").write_text("a dog\n")),
    "deep": ("corpus.footage", lambda here: (here / "footage/one/a.mp4").write_text("footage/one/A.mp4")),
    "added": ("corpus.footage", lambda here: (here / "footage/c.mp4").write_text("")),
    "removed": ("corpus.footage", lambda here: (here / "footage/b.mp4").unlink()),
    "renamed": ("corpus.footage", lambda here: (here / "footage/b.mp4").rename(here / "footage/d.mp4")),
    "base": ("generator.base", lambda here: (here / "base/model_index.json").write_text("{}")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_content_changes_the_digest_of_its_place_alone(
    change: str, places: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    def flat() -> dict[str, str | None]:
        return {key: value for one in digests(tree(**places)).values() for key, value in one.items()}

    for path in tmp_path.rglob("*"):
        if path.is_file():
            os.utime(path, (1e9, 1e9))  # long ago: the digests are remembered
    before = flat()
    assert before == flat() and None not in (before["corpus.prompts"], before["generator.base"])
    (tmp_path / "footage" / ".DS_Store").write_text("a viewer's")
    os.utime(tmp_path / "prompts.txt", (2e9, 2e9))
    assert flat() == before
    key, act = CHANGES[change]
    act(tmp_path)
    after = flat()
    assert {name for name in before if before[name] != after[name]} == {key}


def test_a_remembered_file_is_not_read_again(
    places: dict[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(tmp_path / "prompts.txt", (1e9, 1e9))
    with Remembered(tmp_path / "cache" / "digests.json") as first:
        digest = first.sha256(tmp_path / "prompts.txt")
    monkeypatch.setattr("components.places.sha256_file", None)  # calling it would fail
    with Remembered(tmp_path / "cache" / "digests.json") as second:
        assert second.sha256(tmp_path / "prompts.txt") == digest


def test_objects_of_a_store_count_too(store: Store) -> None:
    store.put("footage/a.mp4", "one")
    store.put("prompts.txt", "a cat\n")
    store.put("prompts.txt.old", "another object of the same beginning\n")
    named = tree(corpus={"prompts": "s3://bucket/prompts.txt", "footage": "s3://bucket/footage"})
    before = digests(named)["corpus"]
    assert None not in before.values()
    store.delete("prompts.txt.old")
    assert digests(named)["corpus"] == before
    store.put("prompts.txt", "a dog\n\n")
    after = digests(named)["corpus"]
    assert after["corpus.prompts"] != before["corpus.prompts"]
    assert after["corpus.footage"] == before["corpus.footage"]
    store.put("footage/a.mp4", "two or more")
    assert digests(named)["corpus"]["corpus.footage"] != before["corpus.footage"]


def test_a_model_of_the_hub_and_nothing_have_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert digests(tree(generator={"base": "owner/model"}))["generator"] == {"generator.base": None}
    assert digests(tree())["registry"] == {"registry.gate": None}


def test_every_step_with_places_depends_on_their_digests(repository: Path) -> None:
    stages = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    assert stages["inputs"]["always_changed"] and stages["registry"]["always_changed"]
    written = {file for out in stages["inputs"]["outs"] for file in out}
    assert written == {f"artifacts/inputs/{section}.json" for section in PLACES}
    for section in PLACES:
        assert f"artifacts/inputs/{section}.json" in stages[section]["deps"]


def test_the_registrys_gate_is_the_pages_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLINEVPO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "gate.yaml").write_text("minimum: {prompts: 1, pairs: 1}\n")
    found = digests(tree(registry={"gate": str(tmp_path / "gate.yaml")}))
    assert found["evaluation"]["evaluation.gate"] == found["registry"]["registry.gate"] is not None


def test_the_tracked_figures_are_a_dozen(repository: Path, tmp_path: Path) -> None:
    stages = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    assert sorted(stages["results"]["foreach"]) == sorted(HEADLINE)
    assert sum(map(len, HEADLINE.values())) <= 12
    (tmp_path / "metrics.json").write_text('{"rewards/accuracies": 0.8, "kept_iteration": 16, "clips": 1152}')
    assert figures_of("alignment", tmp_path) == {"rewards/accuracies": 0.8, "kept_iteration": 16}
    with pytest.raises(InputError, match="run the step first"):
        figures_of("alignment", tmp_path / "none")


def test_figures_are_written_over_such_figures_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONLINEVPO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "metrics.json").write_text('{"rewards/accuracies": 0.8, "clips": 1152}')
    (tmp_path / "settings.json").write_text('{"theme": "dark"}')
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "registry.json").write_text('{"mine": 1}')
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.json")}
    for words in (
        ["headline", "alignment", ".", "settings.json"],
        ["headline", "alignment", ".", "metrics.json"],
        ["digests", "--out", "inputs"],
        ["digests", "--out", "s3://bucket/inputs"],
    ):
        with pytest.raises(SystemExit) as end:
            main(app, words)
        assert end.value.code == 2
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.json")} == before
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            main(app, ["headline", "alignment", ".", "new.json"])
        assert not end.value.code
    assert json.loads((tmp_path / "new.json").read_text()) == {"rewards/accuracies": 0.8}
