"""Attacks by scorers whose weaknesses are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from components.reward.card import attacks as probes
from components.reward.card.attacks import attack_wins, generator_wins
from components.reward.card.card import Wins
from components.reward.distortions import ATTACKS, GENERATED_ATTACKS
from components.reward.ladders.sources import SourceClips
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.signals import StopSignal
from components.video.clip import ClipFormat
from tests.reward.card.conftest import calm, lively
from tests.reward.conftest import textured


def test_attacks_are_seen_through_or_not(pools: dict[str, SourceClips]) -> None:
    with ProcessPool(0, StopSignal()) as pool:
        by_motion = attack_wins(lively, pools, 4, 0, pool)
        by_calm = attack_wins(calm, pools, 4, 0, pool)
    assert set(by_motion) == {"world", "footage"} and set(by_motion["world"]) == set(ATTACKS)
    assert by_motion["footage"]["frozen"] == Wins(4, 4)
    assert by_motion["footage"]["flickering"].share == 0.0
    assert by_calm["footage"]["frozen"].share == by_calm["footage"]["blank"].share == 0.0
    assert by_calm["footage"]["flickering"] == Wins(4, 4)


def test_copies_that_look_the_same_are_left_out_and_counted() -> None:
    grey = torch.full((2, 9, 3, 48, 48), 120, dtype=torch.uint8)
    moving = textured(2, 9, 48)
    clips = {"footage": SourceClips(torch.cat((grey, moving)), list("abcd"))}
    with ProcessPool(0, StopSignal()) as pool:
        wins = attack_wins(lively, clips, 10, 0, pool)["footage"]
    assert wins["frozen"] == Wins(2, 2, same=2)  # nothing moved in the grey ones
    assert wins["blurred"].same == 2 and wins["flickering"].same == 0


def test_attacks_do_not_depend_on_who_makes_them(pools: dict[str, SourceClips]) -> None:
    seen: list[list[Tensor]] = []
    for count in (0, 1):
        clips: list[Tensor] = []

        def keep(frames: Tensor, statistics: Tensor | None, into: list[Tensor] = clips) -> Tensor:
            into.append(frames.clone())
            return torch.zeros(len(frames))

        with ProcessPool(count, StopSignal()) as pool:
            attack_wins(keep, {"footage": pools["footage"]}, 3, 7, pool)
        seen.append(clips)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


class FakeLadder:
    """Stands in for a ladder of the generator: level 0 is bright, others dark, the odd ones the same."""

    def build(self, generator: Any, prompts: list[str], level: int, seeds: list[int]) -> Tensor:
        clips = torch.full((len(prompts), 7, 3, 40, 60), 200, dtype=torch.uint8)
        if level:
            clips[::2] = 40
        return clips


def test_the_generators_own_attacks_are_compared_clip_by_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "GENERATIVE", {name: FakeLadder() for name, _ in GENERATED_ATTACKS.values()})
    shapes = set()

    def bright(frames: Tensor, statistics: Tensor | None) -> Tensor:
        shapes.add(tuple(frames.shape))
        return frames.float().mean(dim=(1, 2, 3, 4))

    generator: Any = object()
    wins = generator_wins(bright, generator, list("abc"), ClipFormat(5, 32, 32, 8.0), 0, StopSignal())
    assert wins == {"few_steps": Wins(2, 2, same=1), "early_checkpoint": Wins(2, 2, same=1)}
    assert shapes == {(3, 5, 3, 32, 32)}  # at the reward's own length and size
