"""Params that name a file or folder of this machine: found by their mark, refused for a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from components.params import Params, load_params, resolved
from components.runtime.errors import GateRefused, InputError
from components.runtime.params import Place, Section, places_in
from components.runtime.step import main
from images.catalogue import sources
from pipelines.__main__ import app
from pipelines.compiler.compile import as_text, documents_of
from pipelines.compiler.image_digests import Images
from pipelines.compiler.profile import Profile, load_profile, profile_names
from pipelines.lint.lint import findings, lint_or_refuse
from pipelines.lint.places import local_places, refuse_local_places
from pipelines.steps import STEPS

PLACES = {".".join(path): (mark, default) for path, mark, default in places_in(Params)}
PLAIN = Profile(description="a test")


def described(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Key path and description of every param that is a text."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from described(annotation, f"{prefix}{name}.")
        elif annotation is str or annotation == (str | None):
            yield f"{prefix}{name}", field.description or ""


def test_every_param_that_speaks_of_a_place_is_marked() -> None:
    speaks = re.compile(r"\b(folder|file|path|place|s3://)", re.IGNORECASE)
    named = {key for key, text in described(Params) if speaks.search(text)}
    assert named == set(PLACES)
    assert {"corpus.footage", "corpus.prompts", "generator.base", "registry.gate"} <= named


def test_every_default_place_is_in_the_images(repository: Path) -> None:
    for key, (_, default) in PLACES.items():
        if not default:
            continue
        (step,) = (step for step in STEPS if step.name == key.partition(".")[0])
        assert default in sources(step.family, "cpu"), key
        assert (repository / default).exists()


def compile_with(setting: str, images_file: Path, folder: Path, *more: str) -> int:
    words = ["compile", "--images", str(images_file), "-o", str(folder / "p.yaml"), "--set", setting, *more]
    with pytest.raises(SystemExit) as caught:
        main(app, words)
    return int(caught.value.code or 0)


@pytest.mark.parametrize("key", sorted(PLACES))
def test_compile_refuses_a_local_place(
    key: str, images_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = "name.txt"
    assert compile_with(f"{key}={value}", images_file, tmp_path) == 2
    said = capsys.readouterr().err
    assert f"{key} = {value}: lies on this machine, where no pod can read it; allowed: an s3:// place" in said
    assert said.count("\n") == 1 and not (tmp_path / "p.yaml").exists()


def test_lint_refuses_what_was_compiled_with_a_local_place(
    images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = load_params(None, [f"{key}=/data/x" for key in PLACES])
    (tmp_path / "p.yaml").write_text(as_text(documents_of(resolved(params), PLAIN, images)))
    with pytest.raises(GateRefused):
        lint_or_refuse(tmp_path / "p.yaml")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(PLACES)
    for key, line in zip(sorted(PLACES), sorted(said), strict=True):
        section = key.partition(".")[0]
        assert f"parameters.{section}_params.{key}: /data/x lies on one machine" in line
    # On this machine it may be there.
    assert findings(documents_of(resolved(params), PLAIN, images), cluster=False) == []


def refused(key: str, value: str) -> bool:
    tree: Any = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    try:
        refuse_local_places(tree)
    except InputError:
        return True
    return False


def test_what_a_cluster_can_read_is_let_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for key, (mark, default) in PLACES.items():
        allowed = ["s3://bucket/x", *mark.words, *([default] if default else [])]
        allowed += ["owner/name", "owner/name.v2"] if mark.hub else []
        for value in allowed:
            assert not refused(key, value), (key, value)
        for value in ("name.txt", "./folder", "folder/", "/data", "~/folder", "file:///data", "a/b/c"):
            assert refused(key, value), (key, value)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert refused("generator.base", "owner/name")  # a folder, then


def test_no_profile_names_a_local_place() -> None:
    for name in profile_names():
        overrides = load_profile(name).overrides()
        assert list(local_places(resolved(load_params(None, overrides)))) == [], name


def test_marks_are_found_in_sections_of_sections() -> None:
    class Inner(Section):
        x: str = "a"

    class Outer(Section):
        inner: Inner = Inner()

    assert list(places_in(Outer)) == []
    Inner.model_fields["x"].metadata.append(Place())
    assert list(places_in(Outer)) == [(("inner", "x"), Place(), "a")]


@pytest.mark.parametrize("values", [None, 7, [], {"prompts": 3}, {"prompts": None}, "text"])
def test_sections_of_odd_types_are_no_fault_of_this_kind(values: Any) -> None:
    assert list(local_places({"corpus": values})) == []


def test_the_params_file_of_a_person_is_refused_as_well(
    images_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"corpus": {"footage": "clips", "prompts": "prompts.txt"}}))
    assert compile_with("run.seed=1", images_file, tmp_path, "--params", str(file)) == 2
    said = capsys.readouterr().err
    assert "corpus.footage = clips" in said and "corpus.prompts = prompts.txt" in said  # both at once
    with pytest.raises(InputError, match=r"corpus\.footage = clips"):
        from pipelines.compiler.compile import compile_to

        compile_to(tmp_path / "p.yaml", file, (), "miniature-cpu", images_file)
