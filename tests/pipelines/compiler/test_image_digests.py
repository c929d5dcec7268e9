"""The images file: every family, every image by digest."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from components.runtime.errors import InputError
from pipelines.compiler.image_digests import Images, is_pinned, load_images, no_images
from pipelines.steps import FAMILIES, STEPS

DIGEST = "sha256:" + "0123456789abcdef" * 4


def test_a_file_of_the_build_script_is_read(images: Images, images_file: Path) -> None:
    assert load_images(images_file) == images


def test_every_family_has_an_image_and_every_step_a_family() -> None:
    assert tuple(Images.model_fields) == FAMILIES
    assert {no_images().of(step.family) for step in STEPS} <= set(no_images().model_dump().values())


@pytest.mark.parametrize(
    ("reference", "pinned"),
    [
        (f"registry.example/onlinevpo-model@{DIGEST}", True),
        (f"localhost/onlinevpo-model@{DIGEST}", True),
        (f"registry.example:5000/team/onlinevpo_model@{DIGEST}", True),
        (f"registry.example/onlinevpo-model:1.2@{DIGEST}", True),
        (f"registry.example/onlinevpo-model:latest@{DIGEST}", False),
        ("registry.example/onlinevpo-model:latest", False),
        ("registry.example/onlinevpo-model:1.2", False),
        ("registry.example/onlinevpo-model", False),
        (f"registry.example/onlinevpo-model@{DIGEST[:-1]}", False),
        (f"registry.example/onlinevpo-model@{DIGEST.upper()}", False),
        (f"registry.example/onlinevpo-model@{DIGEST} --privileged", False),
        (f"@{DIGEST}", False),
        ("", False),
    ],
)
def test_pinned_means_by_digest(reference: str, pinned: bool) -> None:
    assert is_pinned(reference) is pinned


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model": "registry.example/m:1"}, "model = 'registry.example/m:1': must name the image by digest"),
        ({"model": None}, "model = None"),
        ({"models": f"m@{DIGEST}"}, "unknown key"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(
    change: dict[str, str | None], part: str, images: Images, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(images.model_dump() | change))
    with pytest.raises(InputError) as caught:
        load_images(file)
    assert part in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "model: m", "[a, b]", "a: [", "a: 1\n---\nb: 2\n", "just words"])
def test_a_file_that_holds_something_else(text: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"wrong\.yaml"):
        load_images(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_images(tmp_path / "none.yaml")
