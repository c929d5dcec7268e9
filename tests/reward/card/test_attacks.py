"""Attacks and stillness by scorers whose weaknesses are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from components.corpus.world.judge import judge
from components.reward.card import attacks as probes
from components.reward.card.attacks import (
    attack_wins,
    generator_wins,
    motion_amount,
    panned,
    rendered,
    scene_of,
    stillness,
)
from components.reward.card.card import Wins
from components.reward.distortions import ATTACKS, GENERATED_ATTACKS
from components.reward.ladders.sources import SourceClips
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.signals import StopSignal
from components.video.clip import ClipFormat
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


def test_attacks_are_seen_through_or_not(pools: dict[str, SourceClips]) -> None:
    with ProcessPool(0, StopSignal()) as crew:
        by_motion = attack_wins(lively, pools, 4, 0, crew)
        by_calm = attack_wins(calm, pools, 4, 0, crew)
    assert set(by_motion) == {"world", "footage"} and set(by_motion["world"]) == set(ATTACKS)
    assert by_motion["footage"]["frozen"] == Wins(4, 4)
    assert by_motion["footage"]["flickering"].share == 0.0
    assert by_calm["footage"]["frozen"].share == by_calm["footage"]["blank"].share == 0.0
    assert by_calm["footage"]["flickering"] == Wins(4, 4)


def test_copies_that_look_the_same_are_left_out_and_counted() -> None:
    grey = torch.full((2, 9, 3, 48, 48), 120, dtype=torch.uint8)
    moving = textured(2, 9, 48)
    clips = {"footage": SourceClips(torch.cat((grey, moving)), list("abcd"))}
    with ProcessPool(0, StopSignal()) as crew:
        wins = attack_wins(lively, clips, 10, 0, crew)["footage"]
    assert wins["frozen"] == Wins(2, 2, same=2)  # nothing moved in the grey ones
    assert wins["blurred"].same == 2 and wins["flickering"].same == 0


def test_attacks_do_not_depend_on_who_makes_them(pools: dict[str, SourceClips]) -> None:
    seen: list[list[Tensor]] = []
    for count in (0, 1):
        clips: list[Tensor] = []

        def keep(frames: Tensor, statistics: Tensor | None, into: list[Tensor] = clips) -> Tensor:
            into.append(frames.clone())
            return torch.zeros(len(frames))

        with ProcessPool(count, StopSignal()) as crew:
            attack_wins(keep, {"footage": pools["footage"]}, 3, 7, crew)
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


def test_scenes_are_read_from_contents() -> None:
    scene = scene_of(SCENES[1])
    assert scene is not None
    assert scene.caption == "a blue cross moving down quickly on a white background"
    for other in ("video/bikes", "world/odd/1", "world/red-ball-left-slowly-grey/0", "prompt/p1"):
        assert scene_of(other) is None


def test_a_slowed_scene_is_the_same_scene() -> None:
    scenes = [scene for scene in map(scene_of, SCENES) if scene is not None]
    shape = (2, 9, 3, 48, 48)
    fast, slow = rendered(scenes, 1, shape, 0), rendered(scenes, 4, shape, 0)
    assert fast.shape == slow.shape == shape
    # Four of its steps are one of the fast clip's, from the same first frame on.
    assert torch.equal(fast[:, 0], slow[:, 0])
    assert int((fast[:, 1].int() - slow[:, 4].int()).abs().max()) <= 1
    assert int((fast[:, 2].int() - slow[:, 8].int()).abs().max()) <= 1
    assert bool((motion_amount(slow) < 0.5 * motion_amount(fast)).all())
    # Slow is not damaged: to the world's exact judge nothing but the amount of motion is less.
    for clip in slow:
        parts = judge(clip).parts
        assert parts.pop("motion") < 1.0 and min(parts.values()) > 0.99


def test_a_pan_keeps_the_picture_and_changes_the_pace() -> None:
    """The step that explains the change from frame to frame best is 1 px at speed 1 and less when slowed."""
    frames = textured(3, 9, 48)
    fast, slow, still = (panned(frames, speed, 5) for speed in (1.0, 0.125, 0.0))
    assert fast.shape == frames.shape and fast.dtype == torch.uint8
    moved = [float(motion_amount(clips).mean()) for clips in (fast, slow, still)]
    assert moved[0] > 3 * moved[1] > 0 and moved[2] == 0.0
    # Detail is alike: neither pace is blurrier.
    detail = [(clips.float().diff(dim=-1).abs().mean(dim=(1, 2, 3, 4))) for clips in (fast, slow)]
    assert torch.allclose(detail[0], detail[1], rtol=0.2)
    # Across the whole margin: a sixth of the side, in eight steps.
    ramp = torch.arange(48.0).expand(1, 9, 3, 48, 48) * 4
    wide = panned(torch.cat((ramp, ramp.transpose(-1, -2))).to(torch.uint8), 1.0, 5).float().mean(2)
    across = (wide[0, -1] - wide[0, 0]).median() / 4
    down = (panned(ramp.transpose(-1, -2).to(torch.uint8), 1.0, 5).float().mean(2)[0] / 4).diff(dim=0)
    assert float((across**2 + (8 * down.median()) ** 2).sqrt()) == pytest.approx(8.0, abs=0.6)


def test_stillness_is_told_from_motion(pools: dict[str, SourceClips]) -> None:
    rewarded = stillness(calm, pools, 4, 0, level=0.01, stop=StopSignal())
    assert rewarded.verdict > 0
    assert set(rewarded.slowed) == {
        "world_2x_slower", "world_8x_slower", "pan_world_2x_slower", "pan_world_8x_slower",
        "pan_footage_2x_slower", "pan_footage_8x_slower",
    }  # fmt: skip
    assert rewarded.slowed["world_8x_slower"].wins == Wins(0, 2)  # two of the four contents name a scene
    assert rewarded.motion["footage"] == pytest.approx(-1.0)
    punished = stillness(lively, pools, 4, 0, level=0.01, stop=StopSignal())
    assert punished.verdict < 0 and punished.slowed["pan_footage_8x_slower"].wins == Wins(4, 4)
    # The gain is in levels: half the level, twice the gain.
    halved = stillness(calm, pools, 4, 0, level=0.005, stop=StopSignal())
    assert halved.verdict == pytest.approx(2 * rewarded.verdict)
