"""Clips, and scorers whose weaknesses are known."""

from __future__ import annotations

import pytest
from torch import Tensor

from components.reward.card.stillness import motion_amount
from components.reward.ladders.sources import SourceClips
from tests.reward.conftest import textured, world

SCENES = ["world/red-circle-left-slowly-grey/0", "world/blue-cross-down-quickly-white/3"]


def lively(frames: Tensor, statistics: Tensor | None) -> Tensor:
    return motion_amount(frames)


def calm(frames: Tensor, statistics: Tensor | None) -> Tensor:
    return -motion_amount(frames)


@pytest.fixture(scope="module")
def pools() -> dict[str, SourceClips]:
    return {
        "world": SourceClips(world(4, 9, 48), [*SCENES, "world/odd/1", "elsewhere"]),
        "footage": SourceClips(textured(5, 9, 48), list("abcde")),
    }
