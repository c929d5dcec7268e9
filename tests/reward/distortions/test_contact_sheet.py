"""The catalogue for people: every ladder in the table and on the sheet, on clips on which it can be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from components.corpus.dataset import Corpus
from components.reward.distortions import GENERATIVE, REGISTRY
from components.reward.distortions import contact_sheet as catalogue
from tests.reward.conftest import textured, world


@pytest.fixture(scope="module")
def pair() -> Tensor:
    return torch.cat((world(1, 6, 24), textured(1, 6, 24)))


def test_the_table_has_a_line_for_every_ladder() -> None:
    lines = catalogue.table()
    assert len(lines) == 1 + len(REGISTRY) + len(GENERATIVE)
    assert sorted(line.split()[1] for line in lines[1:]) == sorted([*REGISTRY, *GENERATIVE])
    column = lines[0].index("levels 1-5")
    assert all(line[column - 1] == " " and line[column] in "-0123456789" for line in lines[1:])


def test_the_sheet_shows_every_ladder_and_the_generators_when_they_are_given(pair: Tensor) -> None:
    without = catalogue.sheet(pair, ["a", "b"], level=2)
    assert without.height > len(REGISTRY) / 2 * catalogue.CELL
    generated = {name: [pair[0], pair[1], pair[0]] for name in GENERATIVE}
    assert catalogue.sheet(pair, ["a", "b"], 2, generated=generated).height > without.height
    assert catalogue.sheet(pair, ["a", "b"], 4).width > without.width


def test_the_sheet_is_the_same_picture_twice(pair: Tensor) -> None:
    one, two = (np.asarray(catalogue.sheet(pair, ["a", "b"], level=1)) for _ in range(2))
    assert np.array_equal(one, two)


def test_a_frame_stands_on_the_sheet_as_it_is(pair: Tensor) -> None:
    """The first row's first cell is the original over a time slice of it, in six bits a channel."""
    picture = np.asarray(catalogue.sheet(pair, ["a", "b"], level=1)).astype(int)
    cell = catalogue._cells([pair[1]])[0].repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert torch.equal(cell[:, :72:3, ::3], pair[1, round(0.7 * 5)])
    top = cell.permute(1, 2, 0).numpy().astype(int)
    corners = np.argwhere(np.abs(picture[:-96, :-72] - top[0, 0]).max(-1) <= 6)
    assert any(np.abs(picture[y : y + 96, x : x + 72] - top).max() <= 6 for y, x in corners)


def test_damage_to_an_object_is_shown_on_the_clip_that_has_one() -> None:
    """The plain scene for what takes an object away, although a texture loses more in numbers."""
    pixels = torch.cat((world(1, 6, 48), textured(1, 6, 48))).float() / 255
    erased = catalogue._levels(REGISTRY["erase"], pixels, 5, 0)
    assert torch.equal(erased[0], (pixels[0] * 255).round().to(torch.uint8))
    blurred = catalogue._levels(REGISTRY["blur"], pixels, 5, 0)
    assert torch.equal(blurred[0], (pixels[1] * 255).round().to(torch.uint8))


def test_examples_are_lively_held_out_clips(inputs: tuple[Path, Path]) -> None:
    corpus = Corpus.open(inputs[0])
    clips, names = catalogue.examples(corpus)
    assert len(clips) == len(names) == 2 and clips.dtype == torch.uint8
    assert names[0].startswith("world/test") and names[1].startswith("video/test")
    frames, _ = corpus.clips("test", "world")
    moved = frames.float().diff(dim=1).abs().mean(dim=(1, 2, 3, 4))
    assert float((clips[0].float().diff(dim=0).abs().mean() >= moved).float().mean()) >= 0.5


def test_the_documented_catalogue_is_the_registry(repository: Path) -> None:
    """docs/distortions.md stands beside measured seconds: names, levels and words must not age."""
    rows = {}
    for line in (repository / "docs" / "distortions.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            name, levels, unit, summary, _ = (cell.strip() for cell in line.strip("|").split(" | "))
            rows[name.split("`")[1]] = (levels, unit, summary)
    known = {**REGISTRY, **GENERATIVE}
    assert rows.keys() == known.keys()
    for name, found in rows.items():
        entry = known[name]
        assert found == (", ".join(f"{value:g}" for value in entry.levels), entry.unit, entry.summary)
